"""What a function may do with the tables is what its policies in template.yaml say."""
import io
import os
import unittest

from samcli.yamlhelper import yaml_parse

from permissions import Permissions

with open(os.path.join(os.path.dirname(__file__), "..", "..", "template.yaml"), encoding="utf-8") as file:
    PERMISSIONS = Permissions(yaml_parse(file.read()), {"Keys": "keys", "Audit": "audit", "Chain": "chain", "SealingKey": "key-1", "Events": "bus"}, io.StringIO())


def key(pk, table="keys"):
    return {"TableName": table, "Key": {"pk": {"S": pk}, "sk": {"S": "hot"}}}


def put(pk, table):
    return {"TableName": table, "Item": {"pk": {"S": pk}}}


def query(pk, **more):
    return {"TableName": "keys", "KeyConditionExpression": "#pk = :pk AND #sk < :sk", "ExpressionAttributeValues": {":pk": {"S": pk}}, **more}


def kms(key="key-1", context=None):
    return {"KeyId": key, "CiphertextBlob": "x", **({} if context is None else {"EncryptionContext": context})}


def of_stream(name, table="audit"):
    return {name: f"arn:aws:dynamodb:us-east-1:1:table/{table}/stream/2026-11-22T12:00:00.000" + ("|1|AAAA" if name == "ShardIterator" else "")}


def put_events(*buses):
    return {"Entries": [{"EventBusName": bus, "Source": "latchkey"} if bus else {"Source": "latchkey"} for bus in buses]}


ARN = "arn:aws:secretsmanager:us-east-1:1:secret:latchkey/org_1/key_1-a1B2c3"
FOR_ONE = {"latchkey": "9f86d081"}
MAY = [
    ("Authorizer", "UpdateItem", key("K#1")),
    ("Get", "Query", query("K#1")),
    ("List", "Query", query("org_1#shop", IndexName="by-project")),
    ("List", "BatchGetItem", {"RequestItems": {"keys": {"Keys": [key("K#1")["Key"], key("K#2")["Key"]]}}}),
    ("Create", "TransactWriteItems", {"TransactItems": [{"Put": put("K#1", "keys")}, {"Update": key("O#org_1")}, {"Put": put("org_1", "audit")}]}),
    ("Create", "TransactWriteItems", {"TransactItems": [{"Put": put("K#1", "keys")}, {"Put": put("I#1", "keys")}]}),
    ("Revoke", "TransactWriteItems", {"TransactItems": [{"Update": key("I#1")}]}),
    ("Create", "GetItem", key("I#1")),
    ("Rotate", "kms:GenerateDataKey", kms(context=FOR_ONE)),
    ("Create", "kms:Decrypt", kms(context=FOR_ONE)),
    ("AuditTrail", "Query", {**query("org_1"), "TableName": "audit"}),
    ("AuditTrail", "Query", {**query("org_1"), "TableName": "chain"}),
    ("Organization", "TransactWriteItems", {"TransactItems": [{"Update": key("O#org_1")}, {"Put": put("org_1", "audit")}]}),
    ("Get", "GetItem", key("O#org_1")),
    ("Sweep", "Query", query("sweep#3", IndexName="due")),
    ("Sweep", "UpdateItem", key("K#1")),
    ("Sweep", "TransactWriteItems", {"TransactItems": [{"Put": put("K#2", "keys")}, {"Update": key("K#1")}, {"Put": put("I#1", "keys")}]}),
    ("Sweep", "kms:GenerateDataKey", kms(context=FOR_ONE)),
    ("Deliver", "GetItem", key("I#1")),
    ("Deliver", "kms:Decrypt", kms(context=FOR_ONE)),
    ("Webhooks", "TransactWriteItems", {"TransactItems": [{"Update": key("O#org_1")}, {"Put": put("org_1", "audit")}]}),
    ("Webhooks", "TransactWriteItems", {"TransactItems": [{"Put": put("W#org_1", "keys")}, {"Put": put("org_1", "audit")}]}),
    ("Webhooks", "Query", query("V#org_1")),
    ("Deliver", "PutItem", put("V#org_1", "keys")),
    ("Deliver", "secretsmanager:CreateSecret", {"Name": "latchkey/org_1/key_1", "Tags": [{"Key": "x", "Value": "y"}]}),
    ("Deliver", "secretsmanager:PutSecretValue", {"SecretId": "latchkey/org_1/key_1"}),
    ("SecretsManager", "secretsmanager:GetSecretValue", {"SecretId": ARN}),
    ("SecretsManager", "GetItem", key("I#1")),
    ("Publish", "ListStreams", {"TableName": "audit"}),
    ("Publish", "DescribeStream", of_stream("StreamArn")),
    ("Publish", "GetRecords", of_stream("ShardIterator")),
    ("Publish", "TransactWriteItems", {"TransactItems": [{"Put": put("org_1", "chain")}, {"Put": put("org_1", "chain")}]}),
    ("Publish", "PutItem", put("V#org_1", "keys")),
    ("Publish", "events:PutEvents", put_events("bus", "arn:aws:events:us-east-1:1:event-bus/bus")),
]
MAY_NOT = {
    "Authorizer may not UpdateItem Keys O#org_1": ("Authorizer", "UpdateItem", key("O#org_1")),
    "Authorizer may not UpdateItem Audit K#1": ("Authorizer", "UpdateItem", key("K#1", "audit")),
    "Verify may not PutItem Keys K#1": ("Verify", "TransactWriteItems", {"TransactItems": [{"Put": put("K#1", "keys")}]}),
    "Revoke may not DeleteItem Audit org_1": ("Revoke", "TransactWriteItems", {"TransactItems": [{"Delete": key("org_1", "audit")}]}),
    "Get may not Query Keys/index/by-organization": ("Get", "Query", query("org_1", IndexName="by-organization")),
    "List may not BatchGetItem Keys O#org_1": ("List", "BatchGetItem", {"RequestItems": {"keys": {"Keys": [key("K#1")["Key"], key("O#org_1")["Key"]]}}}),
    "Get may not Scan Keys": ("Get", "Scan", {"TableName": "keys"}),
    "Get may not GetItem other K#1": ("Get", "GetItem", key("K#1", "other")),
    "Nobody may not GetItem Keys K#1": ("Nobody", "GetItem", key("K#1")),
    "Revoke may not GetItem Keys I#1": ("Revoke", "GetItem", key("I#1")),
    "Revoke may not PutItem Keys I#1": ("Revoke", "TransactWriteItems", {"TransactItems": [{"Put": put("I#1", "keys")}]}),
    "Revoke may not kms:Decrypt SealingKey latchkey": ("Revoke", "kms:Decrypt", kms(context=FOR_ONE)),
    "Create may not kms:Decrypt SealingKey": ("Create", "kms:Decrypt", kms()),
    "Rotate may not kms:GenerateDataKey SealingKey": ("Rotate", "kms:GenerateDataKey", kms(context={"other": "x"})),
    "Create may not kms:Decrypt key-2 latchkey": ("Create", "kms:Decrypt", kms("key-2", FOR_ONE)),
    "Create may not kms:Decrypt * latchkey": ("Create", "kms:Decrypt", {"CiphertextBlob": "x", "EncryptionContext": FOR_ONE}),
    "Create may not kms:Encrypt SealingKey latchkey": ("Create", "kms:Encrypt", kms(context=FOR_ONE)),
    "Get may not Query Audit org_1": ("Get", "Query", {**query("org_1"), "TableName": "audit"}),
    "AuditTrail may not PutItem Chain org_1": ("AuditTrail", "PutItem", put("org_1", "chain")),
    "AuditTrail may not PutItem Audit org_1": ("AuditTrail", "PutItem", put("org_1", "audit")),
    "AuditTrail may not Query Keys K#1": ("AuditTrail", "Query", query("K#1")),
    "Sweep may not kms:Decrypt SealingKey latchkey": ("Sweep", "kms:Decrypt", kms(context=FOR_ONE)),
    "Sweep may not GetItem Keys I#1": ("Sweep", "GetItem", key("I#1")),
    "Sweep may not Query Keys/index/by-organization": ("Sweep", "Query", query("org_1", IndexName="by-organization")),
    "Deliver may not PutItem Keys I#1": ("Deliver", "TransactWriteItems", {"TransactItems": [{"Put": put("I#1", "keys")}]}),
    "Webhooks may not Query Keys K#1": ("Webhooks", "Query", query("K#1")),
    "Webhooks may not UpdateItem Keys K#1": ("Webhooks", "UpdateItem", key("K#1")),
    "Create may not Query Keys/index/due": ("Create", "Query", query("sweep#3", IndexName="due")),
    "Organization may not Query Keys K#1": ("Organization", "Query", query("K#1")),
    "Organization may not PutItem Keys O#org_1": ("Organization", "PutItem", put("O#org_1", "keys")),
    "Publish may not PutItem Audit org_1": ("Publish", "PutItem", put("org_1", "audit")),
    "Publish may not Query Audit org_1": ("Publish", "Query", {**query("org_1"), "TableName": "audit"}),
    "Publish may not UpdateItem Chain org_1": ("Publish", "TransactWriteItems", {"TransactItems": [{"Update": key("org_1", "chain")}]}),
    "Publish may not PutItem Keys W#org_1": ("Publish", "PutItem", put("W#org_1", "keys")),
    "Publish may not GetItem Keys V#org_1": ("Publish", "GetItem", key("V#org_1")),
    "Publish may not GetRecords Keys/stream": ("Publish", "GetRecords", of_stream("ShardIterator", "keys")),
    "Publish may not events:PutEvents default": ("Publish", "events:PutEvents", put_events("bus", None)),
    "Publish may not events:PutRule *": ("Publish", "events:PutRule", {}),
    "Sweep may not events:PutEvents Events": ("Sweep", "events:PutEvents", put_events("bus")),
    "Sweep may not GetRecords Audit/stream": ("Sweep", "GetRecords", of_stream("ShardIterator")),
    "Deliver may not secretsmanager:GetSecretValue Secrets latchkey/org_1/key_1": ("Deliver", "secretsmanager:GetSecretValue", {"SecretId": ARN}),
    "Deliver may not secretsmanager:PutSecretValue Secrets other": ("Deliver", "secretsmanager:PutSecretValue", {"SecretId": "other"}),
    "SecretsManager may not secretsmanager:CreateSecret Secrets latchkey/org_1/key_1": ("SecretsManager", "secretsmanager:CreateSecret", {"Name": "latchkey/org_1/key_1"}),
    "Sweep may not secretsmanager:PutSecretValue Secrets latchkey/org_1/key_1": ("Sweep", "secretsmanager:PutSecretValue", {"SecretId": ARN}),
    "Organization may not UpdateItem Audit org_1": ("Organization", "TransactWriteItems", {"TransactItems": [{"Update": key("org_1", "audit")}]}),
}


class Allowed(unittest.TestCase):
    def test_what_the_policies_allow(self):
        for request in MAY:
            self.assertIsNone(PERMISSIONS.refused(*request))

    def test_what_they_do_not(self):
        for refusal, request in MAY_NOT.items():
            self.assertEqual(PERMISSIONS.refused(*request), refusal)


if __name__ == "__main__":
    unittest.main()
