"""The rules that our template must keep, checked on what CloudFormation makes of it (transform.py).

    rules.py TRANSFORMED.json    prints each breach and ends with 1 if there is any
"""
import json
import re
import sys

KEYS, AUDIT, CHAIN, SEALING_KEY, FAILURES, UNPUBLISHED, BUS = "Keys", "Audit", "Chain", "SealingKey", "Failures", "Unpublished", "Events"
STREAM, SECRETS = "Audit/stream", "Secrets"
BY_ORGANIZATION, BY_PROJECT, DUE = "Keys/index/by-organization", "Keys/index/by-project", "Keys/index/due"

# A change of a key: its two items, its organization and the count there, the answer that was kept of its creation, whose
# secret goes with a revocation, and the audit entry. Whoever reads a key may have to make one, since it finishes what a
# crash has left closing.
PLAN = {("GetItem", KEYS, "O#*")}
CHANGE = PLAN | {("PutItem", KEYS, "K#*"), ("UpdateItem", KEYS, "K#*"), ("UpdateItem", KEYS, "O#*"), ("UpdateItem", KEYS, "I#*"),
          ("PutItem", AUDIT, "")}
READ = {("Query", KEYS, "K#*")}
LIST = READ | {("BatchGetItem", KEYS, "K#*"), ("Query", BY_ORGANIZATION, "")}
ROOM = PLAN | LIST  # a full plan lists its keys and ends the expired

# To answer the same request again: the answer is kept sealed, and opened for whoever lost it. KMS is asked about nothing
# but what is sealed for one purpose.
SEAL, UNSEAL = ("kms:GenerateDataKey", SEALING_KEY, "latchkey"), ("kms:Decrypt", SEALING_KEY, "latchkey")
REPLAY = {("GetItem", KEYS, "I#*"), ("PutItem", KEYS, "I#*"), SEAL, UNSEAL}

# What is run by schedule finds what is due; a run that fails is told of in a queue. A sweep seals successors, which
# deliveries open; an organization's first signing secret is made by whoever needs it.
RUN = CHANGE | READ | {("Query", DUE, ""), ("sqs:SendMessage", FAILURES, "")}
SIGN = PLAN | {("UpdateItem", KEYS, "O#*"), ("PutItem", AUDIT, ""), SEAL, UNSEAL}
SCHEDULED = {"Sweep", "Deliver"}


def of_secrets(*actions):
    """Keys may be kept in secrets of one beginning, whose names follow from the keys'."""
    return {("secretsmanager:" + a, SECRETS, "latchkey/*") for a in actions}


# An organization's webhooks are one item, and what goes to them is another each. Whoever is told that one is gone disables it.
TOLD_OF = {(action, KEYS, partition) for action in ("GetItem", "PutItem") for partition in ("W#*", "V#*")}

# The chain of what happened is made longer at its end.
LINK = {("GetItem", CHAIN, ""), ("BatchGetItem", CHAIN, ""), ("Query", CHAIN, ""), ("PutItem", CHAIN, "")}

# What each function may do: action, resource, and what it is bound to: the partitions of a table, what a sealed thing is
# for. Nothing else. Nobody may update or delete an audit entry, and AuditTrail alone may read one.
PERMISSIONS = {
    "Create": CHANGE | ROOM | REPLAY,
    "List": CHANGE | LIST | {("Query", BY_PROJECT, "")},
    "Get": CHANGE | READ,
    "Update": CHANGE | ROOM,
    "Revoke": CHANGE | READ,
    "Archive": CHANGE | READ,
    "Reactivate": CHANGE | ROOM,
    "Rotate": CHANGE | READ | REPLAY,
    "AuditTrail": {("Query", AUDIT, ""), ("Query", CHAIN, "")},
    "Organization": PLAN | {("UpdateItem", KEYS, "O#*"), ("PutItem", AUDIT, "")},
    "Webhooks": SIGN | TOLD_OF | {("Query", KEYS, "V#*")},
    "Sweep": RUN | {("PutItem", KEYS, "I#*"), SEAL},
    "Deliver": RUN | SIGN | TOLD_OF | {("GetItem", KEYS, "I#*")} | of_secrets("CreateSecret", "TagResource", "PutSecretValue"),
    "SecretsManager": CHANGE | READ | REPLAY | {("GetItem", KEYS, "K#*")} | of_secrets("DescribeSecret", "GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage"),
    "Publish": {("DescribeStream", STREAM, ""), ("GetShardIterator", STREAM, ""), ("GetRecords", STREAM, ""), ("ListStreams", "*", ""),
                ("sqs:SendMessage", UNPUBLISHED, "")} | LINK | {("GetItem", KEYS, "W#*"), ("PutItem", KEYS, "V#*"), ("events:PutEvents", BUS, "")},
    "Verify": READ | {("UpdateItem", KEYS, "K#*")},
    "Authorizer": {("UpdateItem", KEYS, "K#*")},
}

# Routes without an authorizer: the function asks about the key or the token itself. And a preflight has neither, as
# browsers send none.
DOORS = {"Doors post /v1/api-keys/verify", "Doors get /v1/api-keys/me", "Doors any /v1/authorize"}
ENVELOPE = {"Management post /envelope/v1/api-keys", "Management get /envelope/v1/api-keys",
            "Management delete /envelope/v1/api-keys/{id}"}
PREFLIGHTS = {"Doors options /v1/api-keys/verify", "Doors options /v1/api-keys/me"} | {"Management options " + path for path in (
    "/v1/api-keys", "/v1/api-keys/{id}", "/v1/api-keys/{id}/archive", "/v1/api-keys/{id}/reactivate", "/v1/api-keys/{id}/rotate",
    "/v1/api-keys/{id}/rotate/end", "/v1/api-keys/{id}/rotate/extend", "/v1/keys", "/v1/keys/{id}", "/v1/audit", "/v1/audit/chain", "/v1/organization",
    "/v1/organizations/{id}", "/v1/webhooks", "/v1/webhooks/{id}", "/v1/webhooks/{id}/test", "/v1/webhooks/deliveries",
    "/v1/webhooks/deliveries/{id}", "/v1/webhooks/deliveries/{id}/redeliver", "/v1/webhooks/secret", "/v1/webhooks/secret/rotate", "/envelope/v1/api-keys", "/envelope/v1/api-keys/{id}", "/organizations/api-keys",
    "/organizations/api-keys/{id}", "/organizations/api-keys/{id}/reactivate")}
OPEN = DOORS | ENVELOPE | PREFLIGHTS

SEALS, KEEPS, NOTHING = "Idempotent", "KeepsSecrets", {"Ref": "AWS::NoValue"}
BEHIND = {SEALS: "kms", KEEPS: "secretsmanager"}  # a condition, and what it is about
ALL_SECRETS = "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:"  # and a name with wildcards
PURPOSE = {"Null": {"kms:EncryptionContext:latchkey": "false"}}  # the encryption context says for what it is
ACCOUNT = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}

# What an operator may want to know of, and what may be made of the tables of what happened: nothing is changed or deleted.
ALARMED, TOLD = "Alarmed", {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], NOTHING]}
APPENDING = {"PutItem", "GetItem", "BatchGetItem", "Query"}

# What costs nothing while nothing is done. Whatever is of another kind is behind a condition.
IDLE = {"AWS::ApiGateway::Deployment", "AWS::ApiGateway::RestApi", "AWS::ApiGateway::Stage", "AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Stage",
        "AWS::DynamoDB::Table", "AWS::Events::EventBus", "AWS::IAM::Role", "AWS::Lambda::Alias", "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Function", "AWS::Lambda::Permission", "AWS::Lambda::Version", "AWS::Logs::LogGroup", "AWS::SQS::Queue",
        "AWS::SSM::Parameter", "AWS::Scheduler::Schedule"}  # of these the two schedules alone cost: docs/deploy.md says what

BASIC = re.compile(r"arn:[a-z-]+:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole")  # writes logs


def of_type(resources, kind):
    return {name: r for name, r in resources.items() if r["Type"] == kind}


def name_of(arn):
    """Keys for {"Fn::GetAtt": [Keys, Arn]}, Audit/stream for [Audit, StreamArn], Keys/index/x for {"Fn::Sub":
    ${Keys.Arn}/index/x}, else the text itself."""
    if "Fn::GetAtt" in arn:
        name, attribute = arn["Fn::GetAtt"]
        return name + {"Arn": "", "StreamArn": "/stream"}.get(attribute, "." + attribute)
    return re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", arn["Fn::Sub"]) if "Fn::Sub" in arn else str(arn)


def as_list(value):
    return value if isinstance(value, list) else [value]


def statements(role):
    """The statements of a role. One about KMS or Secrets Manager alone that stands behind its own condition counts as there."""
    for policy in role.get("Policies", []):
        for s in as_list(policy["PolicyDocument"]["Statement"]):
            condition, wanted, otherwise = s.get("Fn::If", [None, None, None])
            about = {a.partition(":")[0] for a in as_list(wanted["Action"])} if wanted else set()
            yield wanted if otherwise == NOTHING and about == {BEHIND.get(condition)} else s


def bounds(s):
    """What a statement's condition binds it to. What cannot be read binds to what no table has."""
    condition = s.get("Condition", {})
    if not condition:
        return [""]
    if condition == PURPOSE:
        return ["latchkey"]
    leading = condition.get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
    if condition == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": leading}}:
        return as_list(leading)
    return [json.dumps(condition)]


def secret_of(arn):
    """The name, with wildcards, of an ARN of this account's secrets; None for other ARNs."""
    text = arn.get("Fn::Sub", "") if isinstance(arn, dict) else ""
    return text.removeprefix(ALL_SECRETS) if text.startswith(ALL_SECRETS) else None


def granted(role):
    """The permissions of a role as rows of PERMISSIONS. What no row can say is a row that no table has."""
    rows = set()
    for s in statements(role):
        if s.get("Effect") != "Allow" or set(s) - {"Effect", "Action", "Resource", "Condition"}:
            rows.add(("unknown", json.dumps(s), ""))
            continue
        rows |= {(a.removeprefix("dynamodb:"), *bound) for a in as_list(s["Action"]) for r in as_list(s["Resource"])
                 for bound in ([(SECRETS, secret_of(r))] if secret_of(r) and "Condition" not in s else [(name_of(r), b) for b in bounds(s)])}
    return rows


def permissions(resources):
    functions = of_type(resources, "AWS::Lambda::Function")
    for name in functions.keys() ^ PERMISSIONS.keys():
        yield f"{name}: the template and PERMISSIONS name different functions"
    for name in functions.keys() & PERMISSIONS.keys():
        role = functions[name]["Properties"]["Role"]
        if role != {"Fn::GetAtt": [name + "Role", "Arn"]}:
            yield f"{name}: its role is not its own"
            continue
        role = resources[name + "Role"]["Properties"]
        for row in granted(role) - PERMISSIONS[name]:
            yield f"{name} may {row} but must not"
        for row in PERMISSIONS[name] - granted(role):
            yield f"{name} may not {row} but must"
        for arn in role.get("ManagedPolicyArns", []):
            if not BASIC.fullmatch(str(arn)):
                yield f"{name} has the managed policy {arn}"
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        for name in of_type(resources, kind):
            yield f"{name}: permissions stand in the function's own policies"


def routes(resources):
    """Every (api, method, path, operation, authorizer name or None)."""
    for kind in ("AWS::ApiGateway::RestApi", "AWS::ApiGatewayV2::Api"):
        for api, r in of_type(resources, kind).items():
            body = r["Properties"]["Body"]
            for path, methods in body["paths"].items():
                for method, operation in methods.items():
                    security = operation.get("security", body.get("security", []))
                    names = [n for needed in security for n in needed]
                    method = "any" if method == "x-amazon-apigateway-any-method" else method
                    yield api, method, path, operation, names[0] if len(names) == 1 else None


def authorizers(resources):
    """No route is open but those named, and the others ask our authorizer about every single request."""
    opened = set()
    for api, method, path, _, authorizer in routes(resources):
        scheme = resources[api]["Properties"]["Body"].get("components", {}).get("securitySchemes", {}).get(authorizer)
        if not scheme:
            opened.add(f"{api} {method} {path}")
            continue
        asked = scheme["x-amazon-apigateway-authorizer"]
        if asked["authorizerResultTtlInSeconds"] != 0:
            yield f"{api}: its authorizer's answers are cached, so limits and revocations are not kept"
        if "${Authorizer.Arn}:live" not in json.dumps(asked["authorizerUri"]):
            yield f"{api}: it does not ask the alias live of our authorizer"
    for route in opened ^ OPEN:
        yield f"{route} is {'open' if route in opened else 'not open'}"


def paths(resources):
    """API Gateway takes one name for a variable at one place of a path."""
    for api in of_type(resources, "AWS::ApiGateway::RestApi"):
        names = {}
        for path in resources[api]["Properties"]["Body"]["paths"]:
            parts = path.split("/")
            for i, part in enumerate(parts):
                if part.startswith("{"):
                    before = re.sub(r"\{[^}]*\}", "{}", "/".join(parts[:i]))
                    if names.setdefault(before, part) != part:
                        yield f"{api}: {path}: the variable after {before} is called {names[before]} elsewhere"


def functions(resources):
    for name, r in of_type(resources, "AWS::Lambda::Function").items():
        p = r["Properties"]
        for property in ("Timeout", "MemorySize", "Architectures"):
            if not p.get(property):
                yield f"{name} has no {property}"
        if p.get("Runtime") != "provided.al2023":
            yield f"{name} runs on {p.get('Runtime')}"
        group = p.get("LoggingConfig", {}).get("LogGroup", {}).get("Ref")
        if not resources.get(group, {}).get("Properties", {}).get("RetentionInDays"):
            yield f"{name} has no log group of ours with a retention"


def alias(resources):
    """Whoever uses the authorizer uses its alias, and every API of the account may."""
    live = [n for n, r in of_type(resources, "AWS::Lambda::Alias").items()
            if r["Properties"]["Name"] == "live" and r["Properties"]["FunctionName"] == {"Ref": "Authorizer"}]
    if not live:
        yield "Authorizer has no alias live"
        return
    permitted = [r["Properties"] for r in of_type(resources, "AWS::Lambda::Permission").values()
                 if r["Properties"]["FunctionName"] == {"Ref": live[0]}]
    if not any("${AWS::AccountId}:*/authorizers/*" in json.dumps(p.get("SourceArn")) for p in permitted):
        yield "not every API of the account may ask the authorizer"
    if not any(r["Properties"]["Value"] == {"Ref": live[0]} for r in of_type(resources, "AWS::SSM::Parameter").values()):
        yield "no SSM parameter holds the authorizer's alias"


def tables(resources):
    for name, r in of_type(resources, "AWS::DynamoDB::Table").items():
        if (r.get("DeletionPolicy"), r.get("UpdateReplacePolicy")) != ("Retain", "Retain"):
            yield f"{name} goes when the stack goes"
        for property in ("PointInTimeRecoverySpecification", "DeletionProtectionEnabled"):
            if property not in r["Properties"]:
                yield f"{name} has no {property}"


def history(resources):
    """What happened is written once. No function may change or delete it, whatever PERMISSIONS says."""
    for name in of_type(resources, "AWS::Lambda::Function"):
        for action, resource, _ in granted(resources.get(name + "Role", {}).get("Properties", {})):
            if resource in (AUDIT, CHAIN) and action not in APPENDING:
                yield f"{name} may {action} of {resource}, which is append only"


def queues(resources):
    """What failed is kept for as long as a queue can, sealed, and may be sent by the functions' own roles alone."""
    for name, r in of_type(resources, "AWS::SQS::Queue").items():
        p = r["Properties"]
        if not p.get("SqsManagedSseEnabled"):
            yield f"{name} is not encrypted"
        if p.get("MessageRetentionPeriod") != 14 * 24 * 60 * 60:
            yield f"{name} does not keep what failed for 14 days"
        if "QueueName" in p:
            yield f"{name} has a name, so that the template cannot be deployed twice"
    for name in of_type(resources, "AWS::SQS::QueuePolicy"):
        yield f"{name}: who may send stands in the functions' own policies"


def stream(resources):
    """What was written into the audit trail comes to Publish, in order and from the first; what fails is tried again in
    halves and at last told of, while the stream still has it. Publish alone says anything at the bus."""
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping")
    if [(m["Properties"]["FunctionName"], m["Properties"]["EventSourceArn"]) for m in mappings.values()] != [
            ({"Ref": "Publish"}, {"Fn::GetAtt": [AUDIT, "StreamArn"]})]:
        yield "there is not one stream alone, of the audit trail to Publish"
    for name, r in mappings.items():
        p = r["Properties"]
        if p.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination") != {"Fn::GetAtt": [UNPUBLISHED, "Arn"]}:
            yield f"{name}: what fails is not told of"
        if p.get("BisectBatchOnFunctionError") is not True or p.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{name}: what fails takes others with it"
        if p.get("StartingPosition") != "TRIM_HORIZON" or "FilterCriteria" in p or p.get("Enabled") is False:
            yield f"{name} leaves something out"
        if not 60 * 60 <= p.get("MaximumRecordAgeInSeconds", -1) <= 12 * 60 * 60:
            yield f"{name} gives up too soon, or when the stream has forgotten what"
    if resources[AUDIT]["Properties"].get("StreamSpecification", {}).get("StreamViewType") != "NEW_IMAGE":
        yield "the audit trail has no stream of what was written"
    for name in of_type(resources, "AWS::Lambda::Function"):
        for action, resource, _ in granted(resources.get(name + "Role", {}).get("Properties", {})):
            if action.startswith("events:") and (name, action, resource) != ("Publish", "events:PutEvents", BUS):
                yield f"{name} may {action} of {resource}: the bus has its events from Publish alone"
    for name in of_type(resources, "AWS::Events::EventBusPolicy"):
        yield f"{name}: the bus has its events from Publish alone"


def invokers(resources):
    """A service that calls a function calls it for this account alone."""
    for name, r in of_type(resources, "AWS::Lambda::Permission").items():
        p = r["Properties"]
        if p["Principal"] == "apigateway.amazonaws.com":
            if "${AWS::AccountId}:" not in json.dumps(p.get("SourceArn")):
                yield f"{name} lets other accounts' APIs call"
        elif p["Principal"] == "secretsmanager.amazonaws.com":
            if p.get("SourceAccount") != {"Ref": "AWS::AccountId"}:
                yield f"{name} lets other accounts' secrets call"
            if r.get("Condition") != KEEPS:
                yield f"{name}: Secrets Manager may call where no key is kept there"
        else:
            yield f"{name} lets {p['Principal']} call"


def alarms(resources):
    """There are alarms if they are wanted. They tell the topic if there is one, and nobody else, and what has no figures is
    well. Each queue has one."""
    watched = set()
    for kind in ("AWS::CloudWatch::Alarm", "AWS::Logs::MetricFilter"):
        for name, r in of_type(resources, kind).items():
            if r.get("Condition") != ALARMED:
                yield f"{name} costs also those who do not want it"
    for name, r in of_type(resources, "AWS::CloudWatch::Alarm").items():
        p = r["Properties"]
        if p.get("AlarmActions") != TOLD or any(p.get(a) for a in ("OKActions", "InsufficientDataActions")):
            yield f"{name} tells others than the topic, or not the topic"
        if p.get("TreatMissingData") != "notBreaching":
            yield f"{name}: what has no figures is not well"
        if "AlarmName" in p:
            yield f"{name} has a name, so that the template cannot be deployed twice"
        watched |= {d["Value"]["Fn::GetAtt"][0] for d in p.get("Dimensions", []) if d["Name"] == "QueueName"}
    for name in of_type(resources, "AWS::SQS::Queue").keys() - watched:
        yield f"nobody is told of what comes to {name}"
    metrics = {json.dumps([t["MetricNamespace"], t["MetricName"]]) for r in of_type(resources, "AWS::Logs::MetricFilter").values()
               for t in r["Properties"]["MetricTransformations"]}
    wanted = {json.dumps([r["Properties"]["Namespace"], r["Properties"]["MetricName"]]) for r in of_type(resources, "AWS::CloudWatch::Alarm").values()
              if not str(r["Properties"]["Namespace"]).startswith("AWS/")}
    for metric in metrics ^ wanted:
        yield f"{metric} is {'counted and not looked at' if metric in metrics else 'looked at and not counted'}"


def charges(resources):
    for name, r in resources.items():
        if r["Type"] not in IDLE and "Condition" not in r:
            yield f"{name}, a {r['Type']}, may cost something while nothing is done"


def sealing(resources):
    """The one key of KMS is there if it is wanted, and gives nobody more than the policies of the functions do. Those alone
    know of it who may use it, or change keys: when a rotation is due depends on whether there is a sealing key."""
    keys = of_type(resources, "AWS::KMS::Key")
    if keys.keys() != {SEALING_KEY}:
        yield f"the keys of KMS are {sorted(keys)}"
    for name, r in keys.items():
        p = r["Properties"]
        if r.get("Condition") != SEALS:
            yield f"{name} costs also those who do not want it"
        if not p.get("EnableKeyRotation"):
            yield f"{name} never changes"
        if [{k: s.get(k) for k in ("Effect", "Principal", "Condition")} for s in as_list(p["KeyPolicy"]["Statement"])] != [
                {"Effect": "Allow", "Principal": ACCOUNT, "Condition": None}]:
            yield f"{name}: its own policy says more than that the account's policies count"
    for name, r in of_type(resources, "AWS::Lambda::Function").items():
        told = r["Properties"].get("Environment", {}).get("Variables", {}).get("LATCHKEY_SEALING_KEY_ID")
        wanted = PERMISSIONS.get(name, set()) & {SEAL, UNSEAL, ("PutItem", KEYS, "K#*")}
        if told != ({"Fn::If": [SEALS, {"Ref": SEALING_KEY}, ""]} if wanted else None):
            yield f"{name} is told of the sealing key as {told}"


def secrets(resources):
    """Whether keys may be kept in Secrets Manager is told to every function, since when a rotation is due depends on it."""
    for name, r in of_type(resources, "AWS::Lambda::Function").items():
        told = r["Properties"].get("Environment", {}).get("Variables", {}).get("LATCHKEY_SECRETS_MANAGER")
        if told != {"Ref": "DeliverToSecretsManager"}:
            yield f"{name} is told of Secrets Manager as {told}"
    if not any(r["Properties"]["FunctionName"] == {"Ref": "SecretsManager"} and r["Properties"]["Principal"] == "secretsmanager.amazonaws.com"
               for r in of_type(resources, "AWS::Lambda::Permission").values()):
        yield "Secrets Manager may not call its function"


def schedules(resources):
    """Sweep and Deliver are run every minute, each run ends before the next begins, and what fails is told of. The template
    can be deployed twice, so nothing has a name of its own."""
    queue = {"Fn::GetAtt": [FAILURES, "Arn"]}
    found = {}
    for name, r in of_type(resources, "AWS::Scheduler::Schedule").items():
        p = r["Properties"]
        found[name_of(p["Target"]["Arn"])] = name
        if (p["ScheduleExpression"], p["FlexibleTimeWindow"]) != ("rate(1 minute)", {"Mode": "OFF"}) or p.get("State", "ENABLED") != "ENABLED":
            yield f"{name} is not once a minute"
        if "Name" in p:
            yield f"{name} has a name, so that the template cannot be deployed twice"
        if p["Target"].get("DeadLetterConfig", {}).get("Arn") != queue or "RetryPolicy" not in p["Target"]:
            yield f"{name}: what cannot be started is not told of"
    for name in found.keys() ^ SCHEDULED:
        yield f"{name} is {'' if name in found else 'not '}run by schedule"
    for name in found.keys() & SCHEDULED:
        p = resources[name]["Properties"]
        if p.get("DeadLetterConfig", {}).get("TargetArn") != queue:
            yield f"{name}: what fails is not told of"
        if not 30 <= p.get("Timeout", 0) < 60:
            yield f"{name} has too much time or too little"
        if not any(r["Properties"]["FunctionName"] == {"Ref": name} for r in of_type(resources, "AWS::Lambda::EventInvokeConfig").values()):
            yield f"{name}: nothing says how often a run that failed is tried again"


RULES = [permissions, authorizers, paths, functions, alias, tables, history, queues, stream, invokers, alarms, charges, sealing, secrets, schedules]


def breaches(template):
    return sorted(b for rule in RULES for b in rule(template["Resources"]))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        found = breaches(json.load(file))
    for breach in found:
        print(breach)
    sys.exit(1 if found else 0)
