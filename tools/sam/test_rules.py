"""Each rule of rules.py sees what it is for: the template keeps all of them, and each change below is told of."""
import copy
import os
import unittest

import rules
from transform import transformed

TEMPLATE = transformed(os.path.join(os.path.dirname(__file__), "..", "..", "template.yaml"))


def statements(r, function):
    return r[function + "Role"]["Properties"]["Policies"][-1]["PolicyDocument"]["Statement"]


def mapping(r):
    return r["PublishEntries"]["Properties"]


def target(r, function):
    return r[function + "Minute"]["Properties"]["Target"]


def operation(r, method, path):
    return r["Management"]["Properties"]["Body"]["paths"][path][method]


def sealing(r, function):
    return [s for s in statements(r, function) if s.get("Fn::If", [None])[0] == "Idempotent"][0]


def kept(r, function):
    return [s for s in statements(r, function) if s.get("Fn::If", [None])[0] == "KeepsSecrets"][0]


def key_policy(r):
    return r["SealingKey"]["Properties"]["KeyPolicy"]["Statement"][0]


def environment(r, function):
    return r[function]["Properties"]["Environment"]["Variables"]


def authorizer(r):
    return r["Management"]["Properties"]["Body"]["components"]["securitySchemes"]["Latchkey"]["x-amazon-apigateway-authorizer"]


def rename(r):
    paths = r["Management"]["Properties"]["Body"]["paths"]
    paths["/v1/api-keys/{key}/rotate"] = paths.pop("/v1/api-keys/{id}/rotate")


# Changes of the transformed template's resources, and a part of what must be told of each.
BROKEN = {
    "an action too many": (lambda r: statements(r, "Verify")[0]["Action"].append("dynamodb:PutItem"), "Verify may ('PutItem'"),
    "an audit entry deleted": (lambda r: statements(r, "Get")[3]["Action"].append("dynamodb:DeleteItem"), "'DeleteItem', 'Audit'"),
    "an action too few": (lambda r: statements(r, "Create")[0]["Action"].remove("dynamodb:Query"), "Create may not ('Query'"),
    "the trail read by another": (lambda r: statements(r, "Organization")[1]["Action"].append("dynamodb:Query"), "Organization may ('Query', 'Audit'"),
    "a kept answer read by another": (lambda r: statements(r, "Update")[2]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"].append("I#*"),
                                      "Update may ('GetItem', 'Keys', 'I#*')"),
    "a kept answer that stays": (lambda r: statements(r, "Archive")[1]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"].remove("I#*"),
                                 "Archive may not ('UpdateItem', 'Keys', 'I#*')"),
    "a key of KMS for another": (lambda r: statements(r, "Get").append(sealing(r, "Create")), "Get may ('kms:Decrypt', 'SealingKey'"),
    "a key of KMS for any purpose": (lambda r: sealing(r, "Create")["Fn::If"][1].pop("Condition"), "Create may ('kms:Decrypt', 'SealingKey', '')"),
    "more of a key of KMS": (lambda r: sealing(r, "Rotate")["Fn::If"][1].update(Action="kms:*"), "Rotate may ('kms:*', 'SealingKey', 'latchkey')"),
    "any key of KMS": (lambda r: sealing(r, "Rotate")["Fn::If"][1].update(Resource="*"), "Rotate may ('kms:Decrypt', '*'"),
    "a permission behind another condition": (lambda r: sealing(r, "Create")["Fn::If"].__setitem__(0, "HasDomain"), "Create may ('unknown'"),
    "a permission or else another": (lambda r: sealing(r, "Create")["Fn::If"].__setitem__(2, {"Effect": "Allow", "Action": "*", "Resource": "*"}),
                                     "Create may ('unknown'"),
    "a sealing key for everybody": (lambda r: key_policy(r).update(Principal="*"), "SealingKey: its own policy says more"),
    "a sealing key for another account": (lambda r: key_policy(r).update(Principal={"AWS": "arn:aws:iam::1:root"}), "SealingKey: its own policy says more"),
    "a sealing key for ever the same": (lambda r: r["SealingKey"]["Properties"].update(EnableKeyRotation=False), "SealingKey never changes"),
    "a sealing key for who does not want it": (lambda r: r["SealingKey"].pop("Condition"), "SealingKey costs also"),
    "a second key of KMS": (lambda r: r.update(Another=copy.deepcopy(r["SealingKey"])), "the keys of KMS are ['Another', 'SealingKey']"),
    "a sealing key not told of": (lambda r: environment(r, "Create").pop("LATCHKEY_SEALING_KEY_ID"), "Create is told of the sealing key as None"),
    "a sealing key told of without condition": (lambda r: environment(r, "Rotate").update(LATCHKEY_SEALING_KEY_ID={"Ref": "SealingKey"}),
                                                "Rotate is told of the sealing key as"),
    "a sealing key that only changes of keys ask for": (lambda r: environment(r, "Update").pop("LATCHKEY_SEALING_KEY_ID"),
                                                        "Update is told of the sealing key as None"),
    "a sealing key told to who need not know": (lambda r: environment(r, "Verify").update(LATCHKEY_SEALING_KEY_ID="x"), "Verify is told of"),
    "a sweep that opens what is sealed": (lambda r: sealing(r, "Sweep")["Fn::If"][1]["Action"].append("kms:Decrypt"), "Sweep may ('kms:Decrypt'"),
    "a delivery that makes keys' successors": (lambda r: statements(r, "Deliver")[0]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"].append("I#*"),
                                               "Deliver may ('PutItem', 'Keys', 'I#*')"),
    "what is due listed by another": (lambda r: statements(r, "Get").append(statements(r, "Sweep")[4]), "Get may ('Query', 'Keys/index/due'"),
    "a queue for another": (lambda r: r["GetRole"]["Properties"]["Policies"].append(r["SweepRole"]["Properties"]["Policies"][0]), "Get may ('sqs:SendMessage'"),
    "a run every five minutes": (lambda r: r["SweepMinute"]["Properties"].update(ScheduleExpression="rate(5 minutes)"), "SweepMinute is not once a minute"),
    "a run at some time": (lambda r: r["DeliverMinute"]["Properties"].update(FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5}),
                           "DeliverMinute is not once a minute"),
    "a schedule that sleeps": (lambda r: r["SweepMinute"]["Properties"].update(State="DISABLED"), "SweepMinute is not once a minute"),
    "a schedule with a name": (lambda r: r["SweepMinute"]["Properties"].update(Name="sweep"), "deployed twice"),
    "no schedule": (lambda r: r.pop("DeliverMinute"), "Deliver is not run by schedule"),
    "a schedule for another": (lambda r: target(r, "Sweep").update(Arn={"Fn::GetAtt": ["Create", "Arn"]}), "Create is run by schedule"),
    "a start that fails in silence": (lambda r: target(r, "Sweep").pop("DeadLetterConfig"), "what cannot be started is not told of"),
    "a start tried for a day": (lambda r: target(r, "Sweep").pop("RetryPolicy"), "what cannot be started is not told of"),
    "a run that fails in silence": (lambda r: r["Deliver"]["Properties"].pop("DeadLetterConfig"), "Deliver: what fails is not told of"),
    "a run that overlaps the next": (lambda r: r["Sweep"]["Properties"].update(Timeout=900), "Sweep has too much time"),
    "a run tried again for hours": (lambda r: r.pop("DeliverEventInvokeConfig"), "Deliver: nothing says how often"),
    "any partition": (lambda r: statements(r, "Authorizer")[0].pop("Condition"), "Authorizer may ('UpdateItem', 'Keys', '')"),
    "another partition": (lambda r: statements(r, "Authorizer")[0].update(
        Condition={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["*"]}}), "'Keys', '*')"),
    "another condition": (lambda r: statements(r, "Authorizer")[0].update(Condition={"Bool": {"x": "y"}}), "Bool"),
    "any resource": (lambda r: statements(r, "List")[0].update(Resource="*"), "'*'"),
    "all but some resources": (lambda r: statements(r, "List")[0].update(NotResource="x"), "'unknown'"),
    "a managed policy": (lambda r: r["GetRole"]["Properties"]["ManagedPolicyArns"].append("arn:aws:iam::aws:policy/Admin"), "policy/Admin"),
    "a role of another": (lambda r: r["Get"]["Properties"].update(Role=r["List"]["Properties"]["Role"]), "its role is not its own"),
    "a function unknown": (lambda r: r.update(Extra=copy.deepcopy(r["Get"])), "Extra: the template and PERMISSIONS"),
    "an open route": (lambda r: operation(r, "get", "/v1/api-keys").update(security=[]), "get /v1/api-keys is open"),
    "a route without a word": (lambda r: operation(r, "get", "/v1/api-keys").pop("security"), "get /v1/api-keys is open"),
    "an unknown authorizer": (lambda r: operation(r, "get", "/v1/api-keys").update(security=[{"NONE": []}]), "get /v1/api-keys is open"),
    "a preflight that needs a key": (lambda r: operation(r, "options", "/v1/api-keys").update(security=[{"Latchkey": []}]),
                                     "options /v1/api-keys is not open"),
    "an envelope that needs a key": (lambda r: operation(r, "get", "/envelope/v1/api-keys").update(security=[{"Latchkey": []}]),
                                     "get /envelope/v1/api-keys is not open"),
    "the trail open": (lambda r: operation(r, "get", "/v1/audit").update(security=[{"NONE": []}]), "get /v1/audit is open"),
    "a preflight of a door too few": (lambda r: r["Doors"]["Properties"]["Body"]["paths"]["/v1/api-keys/me"].pop("options"),
                                      "options /v1/api-keys/me is not open"),
    "a preflight too many": (lambda r: r["Doors"]["Properties"]["Body"]["paths"].update({"/v1/x": {"options": {}}}),
                             "options /v1/x is open"),
    "a door at the other API": (lambda r: r["Management"]["Properties"]["Body"]["paths"].update({"/v1/api-keys/me": {"get": {}}}),
                                "Management get /v1/api-keys/me is open"),
    "a cached authorizer": (lambda r: authorizer(r).update(authorizerResultTtlInSeconds=300), "cached"),
    "no alias asked": (lambda r: authorizer(r).update(authorizerUri="${Authorizer.Arn}"), "does not ask the alias"),
    "a variable of two names": (rename, "elsewhere"),
    "no time-out": (lambda r: r["Get"]["Properties"].pop("Timeout"), "Get has no Timeout"),
    "no memory": (lambda r: r["Get"]["Properties"].pop("MemorySize"), "Get has no MemorySize"),
    "no architecture": (lambda r: r["Get"]["Properties"].pop("Architectures"), "Get has no Architectures"),
    "another runtime": (lambda r: r["Get"]["Properties"].update(Runtime="go1.x"), "Get runs on go1.x"),
    "no log group": (lambda r: r["Get"]["Properties"].pop("LoggingConfig"), "Get has no log group"),
    "logs for ever": (lambda r: r["Logs"]["Properties"].pop("RetentionInDays"), "has no log group of ours with a retention"),
    "no alias": (lambda r: r.pop("AuthorizerAliaslive"), "no alias live"),
    "no permission": (lambda r: r.pop("AuthorizerPermission"), "not every API"),
    "no parameter": (lambda r: r.pop("AuthorizerArn"), "no SSM parameter"),
    "a table that goes": (lambda r: r["Keys"].pop("DeletionPolicy"), "Keys goes"),
    "an audit entry changed": (lambda r: statements(r, "Create")[-2]["Action"].append("dynamodb:UpdateItem"), "Create may UpdateItem of Audit, which is append only"),
    "a link deleted": (lambda r: statements(r, "AuditTrail").append({"Effect": "Allow", "Action": "dynamodb:DeleteItem", "Resource": {"Fn::GetAtt": ["Chain", "Arn"]}}),
                       "AuditTrail may DeleteItem of Chain, which is append only"),
    "links in a batch": (lambda r: statements(r, "AuditTrail").append({"Effect": "Allow", "Action": "dynamodb:BatchWriteItem", "Resource": {"Fn::GetAtt": ["Chain", "Arn"]}}),
                         "AuditTrail may BatchWriteItem of Chain, which is append only"),
    "a queue in the clear": (lambda r: r["Unpublished"]["Properties"].pop("SqsManagedSseEnabled"), "Unpublished is not encrypted"),
    "a queue that forgets": (lambda r: r["Failures"]["Properties"].pop("MessageRetentionPeriod"), "Failures does not keep"),
    "a queue with a name": (lambda r: r["Failures"]["Properties"].update(QueueName="failures"), "Failures has a name"),
    "a queue for anybody": (lambda r: r.update(Policy={"Type": "AWS::SQS::QueuePolicy", "Properties": {}}), "Policy: who may send"),
    "a queue nobody looks at": (lambda r: r.pop("RunsFailed"), "nobody is told of what comes to Failures"),
    "an alarm for who does not want it": (lambda r: r["Tampered"].pop("Condition"), "Tampered costs also"),
    "lines counted for who does not want it": (lambda r: r["TamperedLines"].update(Condition="HasDomain"), "TamperedLines costs also"),
    "an alarm told to nobody": (lambda r: r["Tampered"]["Properties"].pop("AlarmActions"), "Tampered tells others"),
    "an alarm told to no topic": (lambda r: r["Tampered"]["Properties"].update(AlarmActions=[{"Ref": "AlarmTopicArn"}]), "Tampered tells others"),
    "an alarm told to others too": (lambda r: r["Tampered"]["Properties"].update(OKActions=["arn:aws:sns:us-east-1:1:x"]), "Tampered tells others"),
    "an alarm while all is quiet": (lambda r: r["RunsFailed"]["Properties"].pop("TreatMissingData"), "what has no figures is not well"),
    "an alarm with a name": (lambda r: r["RunsFailed"]["Properties"].update(AlarmName="failed"), "RunsFailed has a name"),
    "an alarm of nothing": (lambda r: r["Tampered"]["Properties"].update(MetricName="Tampering"), "looked at and not counted"),
    "lines nobody looks at": (lambda r: r.pop("Tampered"), "counted and not looked at"),
    "a charge by the hour": (lambda r: r.update(Gateway={"Type": "AWS::EC2::NatGateway", "Properties": {}}), "Gateway, a AWS::EC2::NatGateway, may cost"),
    "a webhook made by whoever tells": (lambda r: statements(r, "Publish")[4]["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"].append("W#*"),
                                        "Publish may ('PutItem', 'Keys', 'W#*')"),
    "a stream of nothing": (lambda r: r["Audit"]["Properties"].pop("StreamSpecification"), "no stream of what was written"),
    "a stream of keys alone": (lambda r: r["Audit"]["Properties"]["StreamSpecification"].update(StreamViewType="KEYS_ONLY"), "no stream of what was written"),
    "no one who reads the stream": (lambda r: r.pop("PublishEntries"), "not one stream alone"),
    "a stream of keys": (lambda r: mapping(r).update(EventSourceArn={"Fn::GetAtt": ["Keys", "StreamArn"]}), "not one stream alone"),
    "a stream for another": (lambda r: mapping(r).update(FunctionName={"Ref": "Sweep"}), "not one stream alone"),
    "a record that fails in silence": (lambda r: mapping(r).pop("DestinationConfig"), "PublishEntries: what fails is not told of"),
    "a record told of elsewhere": (lambda r: mapping(r).update(DestinationConfig={"OnFailure": {"Destination": {"Fn::GetAtt": ["Failures", "Arn"]}}}),
                                   "PublishEntries: what fails is not told of"),
    "a bad record among good ones": (lambda r: mapping(r).pop("BisectBatchOnFunctionError"), "takes others with it"),
    "a batch that fails whole": (lambda r: mapping(r).pop("FunctionResponseTypes"), "takes others with it"),
    "what came before": (lambda r: mapping(r).update(StartingPosition="LATEST"), "leaves something out"),
    "deletions left out": (lambda r: mapping(r).update(FilterCriteria={"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}), "leaves something out"),
    "a record that ends all": (lambda r: mapping(r).pop("MaximumRecordAgeInSeconds"), "gives up too soon, or when"),
    "a record given up at once": (lambda r: mapping(r).update(MaximumRecordAgeInSeconds=60), "gives up too soon, or when"),
    "another who speaks at the bus": (lambda r: statements(r, "Sweep").append({"Effect": "Allow", "Action": "events:PutEvents", "Resource": {"Fn::GetAtt": ["Events", "Arn"]}}),
                                      "Sweep may events:PutEvents of Events: the bus"),
    "any bus": (lambda r: statements(r, "Publish").append({"Effect": "Allow", "Action": "events:PutEvents", "Resource": "*"}), "Publish may events:PutEvents of *: the bus"),
    "a bus for other accounts": (lambda r: r.update(Policy={"Type": "AWS::Events::EventBusPolicy", "Properties": {}}), "Policy: the bus"),
    "secrets of others": (lambda r: kept(r, "Deliver")["Fn::If"][1].update(Resource="*"), "Deliver may ('secretsmanager:PutSecretValue', '*'"),
    "secrets of any name": (lambda r: kept(r, "SecretsManager")["Fn::If"][1].update(Resource={"Fn::Sub": rules.ALL_SECRETS + "*"}),
                            "SecretsManager may ('secretsmanager:GetSecretValue', 'Secrets', '*')"),
    "secrets of another account": (lambda r: kept(r, "Deliver")["Fn::If"][1].update(Resource={"Fn::Sub": "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:1:secret:latchkey/*"}),
                                   "Deliver may not ('secretsmanager:PutSecretValue', 'Secrets', 'latchkey/*')"),
    "secrets read by whoever brings": (lambda r: kept(r, "Deliver")["Fn::If"][1]["Action"].append("secretsmanager:GetSecretValue"), "Deliver may ('secretsmanager:GetSecretValue'"),
    "secrets deleted": (lambda r: kept(r, "SecretsManager")["Fn::If"][1]["Action"].append("secretsmanager:DeleteSecret"), "SecretsManager may ('secretsmanager:DeleteSecret'"),
    "secrets for who does not want them": (lambda r: kept(r, "Deliver")["Fn::If"].__setitem__(0, "Idempotent"), "Deliver may ('unknown'"),
    "secrets not told of": (lambda r: environment(r, "Update").pop("LATCHKEY_SECRETS_MANAGER"), "Update is told of Secrets Manager as None"),
    "other accounts' secrets": (lambda r: r["SecretsManagerPermission"]["Properties"].pop("SourceAccount"), "SecretsManagerPermission lets other accounts' secrets"),
    "another account's secrets": (lambda r: r["SecretsManagerPermission"]["Properties"].update(SourceAccount="1"), "SecretsManagerPermission lets other accounts' secrets"),
    "calls for who does not want them": (lambda r: r["SecretsManagerPermission"].pop("Condition"), "may call where no key is kept"),
    "no calls": (lambda r: r.pop("SecretsManagerPermission"), "may not call its function"),
    "other accounts' APIs": (lambda r: r["AuthorizerPermission"]["Properties"].pop("SourceArn"), "AuthorizerPermission lets other accounts' APIs"),
    "a caller unknown": (lambda r: r["AuthorizerPermission"]["Properties"].update(Principal="*"), "AuthorizerPermission lets * call"),
    "a table without recovery": (lambda r: r["Audit"]["Properties"].pop("PointInTimeRecoverySpecification"), "Audit has no"),
}


class Rules(unittest.TestCase):
    def test_the_template_keeps_the_rules(self):
        self.assertEqual(rules.breaches(TEMPLATE), [])

    def test_every_breach_is_told_of(self):
        for name, (change, told) in BROKEN.items():
            with self.subTest(name):
                broken = copy.deepcopy(TEMPLATE)
                change(broken["Resources"])
                self.assertIn(told, "\n".join(rules.breaches(broken)))


if __name__ == "__main__":
    unittest.main()
