import json

import pytest

from ciss_fast.engine.config import Config, all_settings, first_difference
from ciss_fast.engine.settings import at_step
from ciss_fast.errors import ConfigError

WEIGHTS = "name=value with a number or numbers separated by commas"


def test_setting_names_are_unique_over_all_sections():
    names = [field.name for _, field, _ in all_settings()]
    assert len(set(names)) == len(names)


def test_defaults_satisfy_their_own_limits():
    assert Config.from_dict(Config().to_dict()) == Config()


def test_dictionary_survives_json_and_comes_back_the_same():
    config = Config().with_settings(
        {
            "epochs_later": "10,5,5",
            "class_order": [3, 1, 2],
            "loss_weight": ["ali=3,5,2", "kd=1"],
            "weights": "none",
        }
    )
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.optimisation.epochs_later == (10.0, 5.0, 5.0)
    assert config.data.class_order == (3, 1, 2)
    assert config.method.loss_weight == {"ali": (3.0, 5.0, 2.0), "kd": 1.0}
    assert config.model.weights is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr_base", "1e-3", 1e-3),
        ("batch_size", "8", 8),
        ("batch_size", 8.0, 8),
        ("epochs_base", 4, 4.0),
        ("flip", "false", False),
        ("clip_norm", "none", None),
        ("clip_norm", "0.5", 0.5),
        ("lr_later", "0.1", 0.1),
        ("lr_later", [0.1, 0.2], (0.1, 0.2)),
        ("class_order", "2,1", (2, 1)),
        ("class_order", "2,pool table, 1", (2, "pool table", 1)),
        ("class_order", [2, "1", "cat"], (2, 1, "cat")),
        ("data_option", ["image_size_px=64", "name=x"], {"image_size_px": 64, "name": "x"}),
    ],
)
def test_values_from_text_and_from_files(name, value, expected):
    config = Config().with_settings({name: value})
    section = next(section for section, field, _ in all_settings() if field.name == name)
    assert getattr(getattr(config, section), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr_base", "fast", "--lr-base: expected a number or none, got 'fast'"),
        ("lr_base", "0", "--lr-base: expected more than 0, got '0'"),
        ("lr_base", "nan", "--lr-base: expected a finite number, got 'nan'"),
        ("lr_base", True, "--lr-base: expected a number or none, got True"),
        ("batch_size", "2.5", "--batch-size: expected a whole number or none, got '2.5'"),
        ("batch_size", 0, "--batch-size: expected at least 1, got 0"),
        ("flip", "maybe", "--flip: expected true or false, got 'maybe'"),
        ("precision", "fp8", "--precision: expected one of fp32, bf16, fp16, got 'fp8'"),
        ("lr_later", "0.1,x", "--lr-later: expected a number or numbers separated by commas or none, got '0.1,x'"),
        ("lr_later", "0.1,-1", "--lr-later: expected more than 0, got '0.1,-1'"),
        ("class_order", 3, "--class-order: expected ids or names separated by commas or none, got 3"),
        ("class_order", [1, True], "--class-order: expected ids or names separated by commas or none, got [1, True]"),
        ("loss_weight", ["ali"], f"--loss-weight: expected {WEIGHTS}, got ['ali']"),
        ("loss_weight", ["ali=x"], f"--loss-weight: expected {WEIGHTS}, got ['ali=x']"),
        ("method", 3, "--method: expected text, got 3"),
        ("learning_rate", 1, "--learning-rate: unknown setting"),
    ],
)
def test_wrong_values_are_named(name, value, message):
    with pytest.raises(ConfigError) as error:
        Config().with_settings({name: value})
    assert str(error.value) == message


def test_tables_are_merged_with_those_of_the_recipe():
    config = Config().with_settings({"loss_weight": {"ali": 2, "kd": 1}})
    assert config.with_settings({"loss_weight": ["kd=5"]}).method.loss_weight == {"ali": 2.0, "kd": 5.0}


def test_per_step_values():
    assert [at_step(0.5, step, "x") for step in (1, 7)] == [0.5, 0.5]
    assert [at_step((1.0, 2.0), step, "x") for step in (1, 2)] == [1.0, 2.0]
    with pytest.raises(ConfigError, match="--lr-later: .* got 2 values but there is a step 3"):
        at_step((1.0, 2.0), 3, "--lr-later")


def test_first_difference_looks_at_the_given_kinds_only():
    stored = Config().to_dict()
    later = Config().with_settings({"lr_later": 0.5, "method": "mib", "workers": 3, "output": "elsewhere"})
    assert first_difference(stored, later, ("base",)) is None
    assert first_difference(stored, later, ("base", "later")) == "lr_later is None there and 0.5 here"
    base = later.with_settings({"seed": 4})
    assert first_difference(stored, base, ("base",)) == "seed is 0 there and 4 here"


def test_a_setting_the_stored_configuration_lacks_counts_as_its_default():
    stored = Config().to_dict()
    del stored["optimisation"]["clip_norm"]
    assert first_difference(stored, Config(), ("base", "later")) is None
    changed = Config().with_settings({"clip_norm": 1})
    assert first_difference(stored, changed, ("base",)) == "clip_norm is None there and 1.0 here"
