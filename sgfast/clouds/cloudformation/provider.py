"""CloudFormation, AWS's language for resources."""

from __future__ import annotations

from sgfast.clouds.importing.formats import Format
from sgfast.clouds.provider import Provider

#: Top-level keys of a template, of the outputs of the two AWS CLI commands, and of an item in a list of parameters.
_DOCUMENT_KEYS = frozenset(("Resources", "TemplateBody", "Stacks", "ParameterKey"))

CLOUDFORMATION = Provider(
    format=Format(
        "cloudformation",
        "cloudformation.template",
        "AWS CloudFormation",
        "AWS CloudFormation: templates, and files of parameters",
        _DOCUMENT_KEYS,
        _DOCUMENT_KEYS,
        takes_entries=True,
    ),
)
