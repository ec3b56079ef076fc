"""Recognises files of Terraform and OpenTofu that no policy can be read from."""

from __future__ import annotations

from sgfast.errors import PolicyError
from sgfast.policy.yaml_nodes import shown_origin

#: How the names of configurations end.
CONFIGURATIONS = (".tf", ".tofu", ".tf.json", ".tofu.json")
_ZIP = b"PK\x03\x04"
#: How the messages begin that ``terraform plan -json`` prints.
_MESSAGES = b'{"@level":'
#: How the output of ``terraform`` begins where GitHub's setup-terraform has put a script in its place.
_WRAPPED = b"[command]"


def refuse_terraform_input(data: bytes, origin: str) -> None:
    """Raise PolicyError for files of Terraform or OpenTofu that are taken for the output of ``show -json``."""
    if origin.lower().endswith(CONFIGURATIONS):
        cause = "is a configuration, which does not say what Terraform makes of it"
        command = "terraform plan -out plan && terraform show -json plan"
    elif data.startswith(_ZIP) and b"tfplan" in data:
        cause, command = "is a plan file, which only Terraform can read", "terraform show -json PLANFILE"
    elif data.startswith(_MESSAGES):
        cause = "has the messages of terraform plan -json, not the plan"
        command = "terraform plan -out plan && terraform show -json plan"
    elif data.startswith(_WRAPPED):
        cause = "does not begin with JSON but with a command: set terraform_wrapper: false for setup-terraform"
        command = "terraform show -json PLANFILE"
    else:
        return
    raise PolicyError(f"{shown_origin(origin)}: {cause}: run {command} > plan.json, and give plan.json")
