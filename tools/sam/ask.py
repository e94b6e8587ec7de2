"""What the walk asks of what tools/sam/local serves beside its address, as an operator would by the AWS command line.

    ask.py READY events QUEUE         the events that came to a queue of the bus since it was asked last, one a line
    ask.py READY secret NAME          what a secret of Secrets Manager gives to whoever reads it
    ask.py READY rotate NAME          a rotation as Secrets Manager makes it: a version without a value, and then the function
                                      SecretsManager, each step twice, since it may repeat one
    ask.py READY invoke FUNCTION      what a function answers to the event in its folder, or the error that it reports
    ask.py READY tamper ORGANIZATION  changes the first entry of an audit trail in the table, which no function may
    ask.py READY order                of the events on standard input: for each organization they are numbered from 1 on, in
                                      order and without gaps, but for repeats of what was there before
"""
import json
import os
import sys
import uuid

import local

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


def events(ready, queue):
    queues = local.client("sqs", ready["aws"])
    url = queues.get_queue_url(QueueName=queue)["QueueUrl"]
    while messages := queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            print(message["Body"])
            queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def secret(ready, name):
    print(local.client("secretsmanager", ready["aws"]).get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"])


def begin(secrets, name):
    """Begins a rotation: a version without a value, AWSPENDING. moto, which knows no rotation without a function of its own,
    makes that version the current one, and is told otherwise. What it returns is the secret's ARN and the version."""
    before = secrets.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["VersionId"]
    token = str(uuid.uuid4())
    arn = secrets.rotate_secret(SecretId=name, ClientRequestToken=token, RotationRules={"AutomaticallyAfterDays": 30})["ARN"]
    secrets.update_secret_version_stage(SecretId=name, VersionStage="AWSCURRENT", RemoveFromVersionId=token, MoveToVersionId=before)
    secrets.update_secret_version_stage(SecretId=name, VersionStage="AWSPREVIOUS", RemoveFromVersionId=token)
    secrets.update_secret_version_stage(SecretId=name, VersionStage="AWSPENDING", MoveToVersionId=token)
    return arn, token


def rotate(ready, name):
    secrets, functions = local.client("secretsmanager", ready["aws"]), local.client("lambda", ready["lambda"])
    arn, token = begin(secrets, name)
    for step in STEPS:
        for _ in range(2):
            answer = functions.invoke(FunctionName="SecretsManager", Payload=json.dumps({"Step": step, "SecretId": arn, "ClientRequestToken": token}))
            if "FunctionError" in answer:
                sys.exit(f"{step}: {answer['Payload'].read().decode()}")
    stages = secrets.describe_secret(SecretId=name)["VersionIdsToStages"]
    print("rotated" if stages[token] == ["AWSCURRENT"] else f"not rotated: {stages}")


def invoke(ready, function):
    with open(os.path.join(local.FUNCTIONS, function.lower(), "event.json"), "rb") as file:
        print(local.client("lambda", ready["lambda"]).invoke(FunctionName=function, Payload=file.read())["Payload"].read().decode())


def tamper(ready, organization):
    tables = local.client("dynamodb", ready["dynamodb"])
    found = tables.query(TableName=local.TABLES["Audit"], Limit=1, KeyConditionExpression="pk = :pk",
                         ExpressionAttributeValues={":pk": {"S": organization}})["Items"][0]
    tables.put_item(TableName=local.TABLES["Audit"], Item={**found, "actor_id": {"S": "somebody else"}})


def order(_):
    seen = {}
    for line in sys.stdin:
        event = json.loads(line)["detail"]
        if "chain" not in event["data"]:  # audit.tampered is of no chain
            continue
        ids = seen.setdefault(event["data"]["organization_id"], [])
        place = event["data"]["chain"]["sequence"]
        if place > len(ids) + 1 or place <= len(ids) and ids[place - 1] != event["id"]:
            sys.exit(f"after {len(ids)} events of {event['data']['organization_id']} came number {place}, {event['id']}")
        ids[place - 1:place] = [event["id"]]
    print("in order" if seen else "none")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        {f.__name__: f for f in (events, secret, rotate, invoke, tamper, order)}[sys.argv[2]](json.load(file), *sys.argv[3:])
