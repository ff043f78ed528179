"""Networks of torchvision and timm without their classifier: images -> pooled features."""

from dataclasses import dataclass

import torch
from torch import nn

from ucdir.errors import UcdirError, UsageError
from ucdir.outside import is_outside, load_outside, trust

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}  # classifiers half way, for training only


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    module      (N, 3, H, W) normalised images -> (N, feature_dim)
    mean, std   of the three channels, in [0, 1], that the weights expect
    """

    module: nn.Module
    feature_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def build_backbone(name: str, image_size: int, pretrained: bool = False) -> Backbone:
    """Build `torchvision/NAME`, `timm/NAME`, or `module:factory` from outside.

    A factory is called with `pretrained` and returns a network that gives one vector per image, (N, 3, H, W) -> (N, F). Its
    images are normalised like those of ImageNet, unless the network has attributes `mean` and `std`.

    pretrained   take the library's own weights (downloaded once, then from its cache)
    raises       UsageError for an unknown name or a network that gives no vector per image at this size,
                 UcdirError when the weights cannot be fetched
    """
    if is_outside(name):
        return _from_outside(name, image_size, pretrained)
    library, slash, network = name.partition("/")
    if library not in ("torchvision", "timm") or not slash:
        raise UsageError(
            f"unknown backbone '{name}'. Write torchvision/NAME or timm/NAME, for example torchvision/resnet50, "
            "or module:FACTORY for one of your own."
        )
    try:
        backbone = _from_torchvision(network, pretrained) if library == "torchvision" else _from_timm(network, pretrained)
    except OSError as error:
        raise UcdirError(
            f"the pretrained weights of '{name}' could not be downloaded ({error}). "
            "Give a file with --weights PATH, or --weights none to start from random numbers."
        ) from error
    module, mean, std = backbone
    return Backbone(module, _feature_dim(name, module, image_size), mean, std)


_Parts = tuple[nn.Module, tuple[float, float, float], tuple[float, float, float]]


def _from_outside(name: str, image_size: int, pretrained: bool) -> Backbone:
    module = load_outside(name, "backbone")(pretrained=pretrained)
    trust(name)
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"backbone '{name}' returned {type(module).__name__}, expected a torch.nn.Module. Correct the factory."
        )
    mean, std = (tuple(getattr(module, key, usual)) for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    return Backbone(module, _feature_dim(name, module, image_size), mean, std)


def _from_torchvision(network: str, pretrained: bool) -> _Parts:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if network not in names:
        raise UsageError(f"torchvision has no classification network '{network}'.{_near(network, names)}")
    quick = {"init_weights": False} if network in AUXILIARY else {}
    module = torchvision.models.get_model(network, weights="DEFAULT" if pretrained else None, **quick)
    _strip_classifier(module)
    return module, IMAGENET_MEAN, IMAGENET_STD


def _from_timm(network: str, pretrained: bool) -> _Parts:
    import timm

    if not timm.is_model(network):
        raise UsageError(f"timm has no network '{network}'.{_near(network, timm.list_models())}")
    if pretrained and not timm.is_model_pretrained(network):
        raise UsageError(
            f"timm has no weights for '{network}'. Give a file (--weights PATH), or start from random numbers (--weights none)."
        )
    module = timm.create_model(network, pretrained=pretrained, num_classes=0)
    data = timm.data.resolve_model_data_config(module)  # type: ignore[attr-defined, no-untyped-call]
    return module, tuple(data["mean"]), tuple(data["std"])


def _strip_classifier(module: nn.Module) -> None:
    """Put the identity where a torchvision network classifies, keeping what pools and flattens there."""
    for attribute in (name for names in AUXILIARY.values() for name in names if hasattr(module, name)):
        setattr(module, attribute, None)
        module.aux_logits = False  # type: ignore[assignment]
    for attribute in ("fc", "classifier", "heads", "head"):
        head = getattr(module, attribute, None)
        if not isinstance(head, nn.Module):
            continue
        if isinstance(head, nn.Sequential) and any(isinstance(layer, nn.Flatten) for layer in head):
            head[-1] = nn.Identity()
        elif isinstance(head, nn.Sequential) and isinstance(head[-1], nn.AdaptiveAvgPool2d):  # SqueezeNet pools last
            setattr(module, attribute, head[-1])
        else:
            setattr(module, attribute, nn.Identity())
        return


@torch.no_grad()
def _feature_dim(name: str, module: nn.Module, image_size: int) -> int:
    training = module.training
    try:
        features = module.eval()(torch.zeros(2, 3, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(f"backbone '{name}' refuses images of {image_size} px ({error}). Use another --image-size.") from error
    finally:
        module.train(training)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise UsageError(f"backbone '{name}' does not give one vector per image. Choose a classification network.")
    return features.shape[1]


def _near(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else " See the library's own list of networks."
