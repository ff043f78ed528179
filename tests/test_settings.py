"""Settings: preset < file < assignments, unknown keys refused, written and read back unchanged."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucdir.errors import UsageError
from ucdir.learn.methods.ucdir import UcdirSettings
from ucdir.settings import (
    CLOSED_FORM,
    METHODS,
    DataSettings,
    EncoderSettings,
    OptimiserSettings,
    RunSettings,
    Settings,
    differences,
    load_settings,
    parse_assignments,
    preset_names,
    settings_class,
    stored_settings,
)


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


# Presets

PAPER: dict[str, dict[str, Any]] = {
    "office-home": {
        "num_clusters": (65,),
        "cluster_weight": 0.5,
        "entropy_weight": 1.0,
        "entropy_temperature": 0.01,
        "distance_weight": 0.5,
    },
    "domainnet": {
        "num_clusters": (7,),
        "cluster_weight": 1.0,
        "entropy_weight": 0.5,
        "entropy_temperature": 0.1,
        "distance_weight": 0.1,
    },
}
BOTH = {
    "encoder_momentum": 0.999,
    "batch_norm_splits": 2,
    "temperature": 0.2,
    "confidence": 0.2,
    "instance_weight": 1.0,
    "cluster_start": 20 / 200,
    "cluster_full": 100 / 200,
    "alignment_start": 100 / 200,
    "distance_temperature": 0.01,
    "name": "ucdir",
    "kmeans_iterations": 20,
    "kmeans_restarts": 5,
    "kmeans_warm_start": False,
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_of_the_paper(name: str) -> None:
    """Hu & Lee 2022, as the released code runs it."""
    found = load_settings(name)
    settled = BOTH | PAPER[name]
    assert found.method.model_dump(include=set(settled)) == settled
    assert found.method.model_dump(exclude=set(settled)) == UcdirSettings().model_dump(exclude=set(settled))
    assert found.encoder == EncoderSettings(
        backbone="torchvision/resnet50",
        weights="moco_v2_800ep_pretrain.pth.tar",
        image_size=224,
        dim=128,
        hidden=None,
    )
    assert found.data.max_blur_sigma == 2.0
    rate = found.optimiser
    assert (rate.learning_rate, rate.momentum, rate.weight_decay, rate.schedule) == (2e-4, 0.9, 1e-4, "cosine")
    assert (rate.batch_size, rate.epochs) == (64, 200)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    assert isinstance(load_settings(name), Settings)


def test_preset_names_are_sorted_and_hold_the_papers() -> None:
    assert list(preset_names()) == sorted(preset_names())
    assert {"office-home", "domainnet"} <= set(preset_names())


def test_an_unknown_preset_suggests_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown preset 'officehome'\. Did you mean office-home"):
        load_settings("officehome")


# What wins


def test_assignments_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = written(tmp_path, "[optimiser]\nepochs = 7\nbatch_size = 8\n[method]\nnum_clusters = [3, 5]\n")
    found = load_settings("domainnet", file, {"optimiser.batch_size": 16})
    assert (found.optimiser.epochs, found.optimiser.batch_size) == (7, 16)
    assert found.method.num_clusters == (3, 5)
    assert found.method.entropy_temperature == 0.1
    assert found.run == RunSettings()


def test_nothing_given_is_align() -> None:
    assert load_settings() == load_settings("align")
    assert load_settings().aligns


def test_a_gradient_method_without_a_preset_has_the_defaults() -> None:
    assert load_settings(assignments={"method.name": "ucdir"}) == Settings().of_method("ucdir")


@pytest.mark.parametrize(
    ("key", "flag"),
    [("optimiser.epochs", "--epochs"), ("method.num_clusters", "--num-clusters"), ("encoder.dim", "--set encoder.dim")],
)
def test_settings_of_gradient_methods_are_refused_with_align(key: str, flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag} has no effect with method align.*--method ucdir"):
        load_settings(assignments={key: 9})


def test_settings_of_align_are_refused_with_a_gradient_method() -> None:
    with pytest.raises(UsageError, match=r"--set align\.rounds has no effect with method ucdir"):
        load_settings("domainnet", assignments={"align.rounds": 2})


def test_what_a_method_does_not_read_is_not_written() -> None:
    assert "[optimiser]" not in load_settings().to_toml()
    assert "[align]" not in load_settings("quick").to_toml()
    assert "batch_norm_splits" not in load_settings().to_toml()
    assert "ot_smoothing" not in load_settings("quick").to_toml()
    assert "entropy_weight" not in load_settings("quick", assignments={"method.name": "cluster"}).to_toml()


@pytest.mark.parametrize("method", [*CLOSED_FORM, *METHODS])
def test_what_a_method_reads_is_written(method: str) -> None:
    found = Settings().of_method(method).to_toml()
    assert {line.split(" = ")[0] for line in found.split("[method]\n")[1].split("\n\n")[0].splitlines()} == {
        *settings_class(method).model_fields
    }


def test_methods_that_share_settings_need_one_that_reads_them() -> None:
    given = {"method.over_clusters": [7], "align.draw": 1}
    found = load_settings("head", assignments=given, methods=("coda", "align"), method="coda")
    assert found.method.model_dump()["over_clusters"] == (7,)
    assert load_settings("head", assignments=given, methods=("coda", "align"), method="align").align.draw == 1
    with pytest.raises(UsageError, match=r"over_clusters has no effect with method cluster or align.*\(--method coda\)"):
        load_settings("head", assignments=given, methods=("cluster", "align"))


# Of earlier versions

FORMAT_1 = """
[data]
strongest_blur = 0.5

[method]
name = "cluster"
entropy_weight = 0.5

[optimiser]
epochs = 50
parts = 2
milestones = [10, 35]
"""


def test_a_run_folder_of_format_1_is_read_with_todays_names(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FORMAT_1)
    found = stored_settings(tmp_path)
    assert found.data.max_blur_sigma == 0.5
    assert found.optimiser.accumulation_steps == 2
    assert found.optimiser.milestones == (0.2, 0.7)
    assert stored_settings_of(found, tmp_path) == found.to_toml()


def stored_settings_of(found: Settings, folder: Path) -> str:
    """As they are written and read again."""
    (folder / "config.toml").write_text(found.to_toml())
    return stored_settings(folder).to_toml()


@pytest.mark.parametrize(
    ("line", "new"),
    [("data.strongest_blur = 1.0", "data.max_blur_sigma"), ("optimiser.parts = 2", "optimiser.accumulation_steps")],
)
def test_a_setting_that_was_renamed_is_named_anew(tmp_path: Path, line: str, new: str) -> None:
    with pytest.raises(UsageError, match=rf"'{line.split()[0]}' in '.*' is now called {new}\. Rename it"):
        load_settings("quick", file=written(tmp_path, line))


def test_settings_of_a_later_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has format_version 99; this ucdir reads up to 2\. Update ucdir"):
        load_settings(file=written(tmp_path, "format_version = 99"))


def test_milestones_are_fractions() -> None:
    with pytest.raises(UsageError, match=r"fraction of the run between 0 and 1; epoch 120 of 200 is 0\.6"):
        load_settings("quick", assignments={"optimiser.milestones": [120, 160]})


def test_runs_differ_only_in_what_their_method_reads() -> None:
    other = load_settings().model_copy(update={"optimiser": OptimiserSettings(epochs=3)})
    assert differences(load_settings(), other) == ()
    assert differences(load_settings(), load_settings(assignments={"align.rounds": 2})) == ("align.rounds",)


# Written and read back

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shares = st.floats(0, 1)
positive = st.floats(1e-12, 1e12)


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    start = draw(shares)
    return Settings(
        data=DataSettings(
            domains=tuple(draw(st.lists(texts, max_size=3))),
            classes=draw(st.sampled_from(["auto", "folders", "none"])),
            split=draw(st.none() | texts),
            max_unreadable=draw(shares),
        ),
        encoder=EncoderSettings(weights=draw(texts), hidden=draw(st.none() | st.integers(1, 10**9))),
        method=UcdirSettings(
            name="ucdir",
            num_clusters=tuple(draw(st.lists(st.integers(2, 999), min_size=1, max_size=3))),
            temperature=draw(positive),
            cluster_start=start,
            cluster_full=draw(st.floats(start, 1)),
        ),
        optimiser=OptimiserSettings(
            learning_rate=draw(positive), milestones=tuple(draw(st.lists(st.floats(0.01, 0.99), max_size=3)))
        ),
        run=RunSettings(seed=draw(st.integers(0, 2**60)), oracle=draw(st.booleans())),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(found=any_settings())
def test_to_toml_is_read_back_to_equal_settings(found: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = written(tmp_path_factory.mktemp("toml"), found.to_toml())
    assert load_settings(file=file) == found


def test_toml_is_read_by_people() -> None:
    text = Settings(data=DataSettings(domains=('a="b\\c"\n',))).of_method("ucdir").to_toml()
    assert 'domains = ["a=\\"b\\\\c\\"\\u000a"]' in text
    assert "num_clusters = [65]" in text
    assert "oracle = true" in text
    assert "\nsplit" not in text


# Unknown and wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimiser.epoch": 3}, r"unknown setting 'optimiser.epoch' in the command line\. Did you mean epochs"),
        ({"optimizer.epochs": 3}, r"unknown section 'optimizer' in the command line\. Did you mean optimiser"),
        ({"data.batch_size": 3}, r"unknown setting 'data.batch_size'.*Did you mean optimiser.batch_size or tune.batch_size\?"),
        ({"method.name": "protot"}, r"unknown method 'protot'\. Did you mean protoot.*\?.* is named module:CLASS"),
        ({"method.qqqq": 3}, r"unknown setting 'method.qqqq'.*Choose from: name, num_clusters, "),
        ({"epochs": 3}, r"setting 'epochs' has no section\..*optimiser.epochs"),
        ({"optimiser.epochs.more": 3}, r"unknown setting 'optimiser.epochs.more'"),
    ],
)
def test_unknown_settings_suggest_near_ones(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(assignments=given)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("optimiser.epochs", 0, "greater than or equal to 1"),
        ("optimiser.epochs", 1.5, "integer"),
        ("optimiser.epochs", "many", "integer"),
        ("optimiser.batch_size", 1, "greater than or equal to 2"),
        ("optimiser.learning_rate", 0, "greater than 0"),
        ("optimiser.learning_rate", float("nan"), "finite"),
        ("optimiser.learning_rate", float("inf"), "finite"),
        ("optimiser.momentum", 1, "less than 1"),
        ("optimiser.schedule", "linear", "'cosine' or 'step'"),
        ("method.num_clusters", 1, "at least 2"),
        ("method.num_clusters", [], "at least one count"),
        ("method.num_clusters", [7, 1], "at least 2"),
        ("method.temperature", 0, "greater than 0"),
        ("method.confidence", 1, "less than 1"),
        ("method.encoder_momentum", 1.01, "less than or equal to 1"),
        ("encoder.image_size", 8, "greater than or equal to 16"),
        ("encoder.dim", None, "integer"),
        ("data.max_unreadable", -0.1, "greater than or equal to 0"),
        ("data.max_blur_sigma", 0, "greater than or equal to 0.1"),
        ("data.classes", "labels", "'auto', 'folders' or 'none'"),
        ("run.seed", -1, "greater than or equal to 0"),
        ("run.precision", "half", "'auto', 'float32' or 'bfloat16'"),
    ],
)
def test_wrong_values_name_the_setting_and_the_rule(key: str, value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"setting {key}.* is not valid: .*{reason}"):
        load_settings("quick", assignments={key: value})


def test_a_ramp_that_goes_back_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cluster_full=0\.1 is before cluster_start=0\.5"):
        load_settings("quick", assignments={"method.cluster_start": 0.5, "method.cluster_full": 0.1})


def test_one_cluster_count_needs_no_list() -> None:
    assert load_settings("quick", assignments={"method.num_clusters": 9}).method.num_clusters == (9,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\nepoch = 3", r"unknown setting 'optimiser.epoch' in '.*settings.toml'\. Did you mean epochs"),
        ("optimiser = 3", "'optimiser' in .* is a value, not a section"),
        ("epochs = 3", "unknown section 'epochs'"),
        ("[optimiser\n", "cannot be read as TOML"),
        ("[optimiser]\nepochs = 3\nepochs = 4", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(file=written(tmp_path, text))


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="settings file not found"):
        load_settings(file=tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        load_settings(file=tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        load_settings(file=tmp_path / "binary.toml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().run.seed = 3


# --set


def test_assignments_from_the_command_line() -> None:
    texts = ["optimiser.epochs=3", "method.num_clusters=[4, 5]", "data.split=train", "run.oracle=false", "run.device = cpu"]
    assert parse_assignments(texts) == {
        "optimiser.epochs": 3,
        "method.num_clusters": [4, 5],
        "data.split": "train",
        "run.oracle": False,
        "run.device": "cpu",
    }
    assert load_settings("quick", assignments=parse_assignments(texts)).method.num_clusters == (4, 5)


def test_an_assignment_may_hold_equals_signs_and_quotes() -> None:
    assert parse_assignments(["data.split=a=b", 'data.split="12"'][:1]) == {"data.split": "a=b"}
    assert parse_assignments(['data.split="12"']) == {"data.split": "12"}


def test_an_assignment_without_value() -> None:
    with pytest.raises(UsageError, match=r"--set 'run.seed' has no value"):
        parse_assignments(["run.seed"])
