"""Settings of a training that takes a second: an untrained network for images of 32 px, on the CPU."""

GRADIENT = {
    "method.name": "ucdir",
    "encoder.backbone": "timm/test_resnet",
    "encoder.weights": "none",
    "encoder.image_size": 32,
    "encoder.dim": 16,
    "method.num_clusters": [3],
    "run.device": "cpu",
    "run.precision": "float32",
}
