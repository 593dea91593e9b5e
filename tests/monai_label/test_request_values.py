from __future__ import annotations

from typing import Any

import pytest

from scripts.errors import UserError
from scripts.monai_label.request_values import KINDS, check_request, without_settings


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("sign", ["$", "@", "%", " $", "\n%"])
def test_no_value_that_monai_evaluates_passes(kind: str, sign: str) -> None:
    text = f"{sign}bundle_root"
    for name in [*KINDS[kind], "client_id", "session", "unknown"]:
        for value in (text, [text], {"a": [text]}, {text: 1}, {"_target_": "os.getcwd"}, [[[{"b": text}]]]):
            with pytest.raises(UserError, match="expected"):
                check_request(kind, {name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value", "wanted"),
    [
        ("infer", "threshold", "0.52", 0.52),
        ("infer", "threshold", 7, 7),
        ("infer", "keep_outside", "true", True),
        ("infer", "device", ["cpu"], "cpu"),
        ("infer", "model_filename", ["model.pt"], "model.pt"),
        ("infer", "device", "Tesla T4:0", "Tesla T4:0"),
        ("train", "pretrained", "false", False),
        ("train", "max_epochs", "2", 2),
        ("train", "val_split", 0, 0),
        ("train", "run_id", "", ""),
        ("train", "tracking", ["None", "mlflow"], "None"),
        ("train", "gpus", "0,1", "0,1"),
        ("batch_infer", "images", ["a b", "1.2.3"], ["a b", "1.2.3"]),
        ("scoring", "simulation_size", 3, 3),
    ],
)
def test_values_get_their_type_and_pass_again(kind: str, name: str, value: Any, wanted: Any) -> None:
    checked = check_request(kind, {name: value}, ["Tesla T4:0"])
    assert checked == {name: wanted}
    assert type(checked[name]) is type(wanted)
    assert check_request(kind, checked, ["Tesla T4:0"]) == checked


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("infer", "threshold", True),
        ("infer", "threshold", "nan"),
        ("infer", "threshold", None),
        ("infer", "result_extension", "/../x.nrrd"),
        ("infer", "model_filename", "../other.pt"),
        ("infer", "label_tag", "../final"),
        ("infer", "label_tag", "final"),
        ("infer", "treshold", 0.3),
        ("train", "max_epochs", 0),
        ("train", "max_epochs", 1.5),
        ("train", "val_split", 1),
        ("train", "tracking", "/tmp/settings.json"),
        ("train", "run_id", "--config_file"),
        ("train", "gpus", "0;1"),
        ("scoring", "simulation_size", 10**400),
    ],
)
def test_other_values_are_refused_by_name(kind: str, name: str, value: Any) -> None:
    if value == 10**400:
        value = float("inf")
    with pytest.raises(UserError, match=name) as error:
        check_request(kind, {name: value})
    assert "\n" not in str(error.value)


def test_what_clients_send_beside_it_goes_no_further() -> None:
    sent = {
        "client_id": "user-xyz",
        "restore_label_idx": False,
        "label_prompt": [1],
        "session": {"image": "/etc/passwd"},
    }
    assert check_request("infer", {"image": "a", **sent}) == {"image": "a"}
    assert check_request("scoring", {"method": "epistemic", "bundle_path": "/tmp"}) == {"method": "epistemic"}


def test_settings_of_the_model_are_left_out_and_names_of_any_type_are_refused() -> None:
    settings: dict[str, Any] = {"model": "m", "m": {"lr": 1}, "method": "epistemic", "epistemic": {}, "other": {}}
    assert without_settings(settings) == {"model": "m", "method": "epistemic", "other": {}}
    for name in ("model", "method"):
        assert check_request("scoring", without_settings({name: ["x"]})) == {name: "x"}
        with pytest.raises(UserError, match=f"{name} is .*; expected: a name of letters"):
            check_request("scoring", without_settings({name: {"a": 1}}))
