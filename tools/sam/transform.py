"""Prints what CloudFormation makes of a SAM template: plain JSON, for cfn-lint and rules.py. It asks nobody.

    transform.py TEMPLATE
"""
import json
import logging
import os
import sys

os.environ["AWS_DEFAULT_REGION"] = "us-east-1"  # the translator wants to know one

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

logging.getLogger("samtranslator").setLevel(logging.ERROR)

BASIC = "AWSLambdaBasicExecutionRole"


class ManagedPolicies:
    """IAM's list of managed policies, of which SAM itself adds one."""

    def load(self):
        return {BASIC: "arn:aws:iam::aws:policy/service-role/" + BASIC}


def transformed(path):
    with open(path, encoding="utf-8") as file:
        template = yaml_parse(file.read())
    for name, resource in template["Resources"].items():
        if "CodeUri" in resource.get("Properties", {}):
            resource["Properties"]["CodeUri"] = "s3://bucket/" + name  # where sam deploy would put the code
    return transform(template, {}, ManagedPolicies())


if __name__ == "__main__":
    json.dump(transformed(sys.argv[1]), sys.stdout, indent=1)
