"""Runs the deployed shape of the service on this machine until it is told to stop; tools/sam/local calls it.

    local.py TEMPLATE BUILD READY PORT DYNAMODB LATCHKEYD    ORIGINS in the environment is the parameter AllowedOrigins,
                                                             EVERY the seconds between scheduled runs (default 60)

It starts DynamoDB Local, lets latchkeyd make the tables, the organization org_dev and a management key, starts moto as KMS,
EventBridge, Secrets Manager and SQS, and a second latchkeyd as the issuer of people's tokens, and then serves both APIs of
the template at one address of this machine, runs those functions that have a schedule, and gives those that have a stream
what comes out of it. Each function may do with the tables, the key, the bus and the secrets what its policies say. What it
started it stops, by process id.
"""
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import boto3
import flask
from samcli.yamlhelper import yaml_parse
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

import apis
import permissions

PATIENCE = 30
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TABLES = {"Keys": "latchkey-keys", "Audit": "latchkey-audit", "Chain": "latchkey-chain"}
BUS = "latchkey-events"
FUNCTIONS = os.path.join(os.path.dirname(__file__), "../../functions")
RULE = os.path.join(os.path.dirname(__file__), "../../examples/event-rule/template.yaml")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def wait(what, ready, process):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise apis.Refused(f"{what} did not start: see the log")
        time.sleep(0.05)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def start(command, log, environment=None):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def develop(started, log, latchkeyd, *flags):
    """A latchkeyd in development mode. What it returns is its ready file."""
    with tempfile.TemporaryDirectory() as folder:
        ready = os.path.join(folder, "ready.json")
        started.append(start([latchkeyd, "-dev", "-listen", "127.0.0.1:0", "-ready-file", ready, *flags], log, {}))
        wait("latchkeyd", lambda: os.path.exists(ready), started[-1])
        with open(ready, encoding="utf-8") as file:
            return json.load(file)


def database(started, log, folder):
    """Starts DynamoDB Local. What it returns is its address."""
    port = apis.free_port()
    started.append(start(["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Djava.library.path=" + folder, "-cp", folder + "/*",
                          "software.amazon.dynamodb.services.local.main.ServerRunner", "-inMemory", "-sharedDb", "-disableTelemetry",
                          "-port", str(port)], log))
    wait("DynamoDB Local", lambda: listens(port), started[-1])
    return f"http://127.0.0.1:{port}"


def services(started, log):
    """Starts moto. What it returns is its address."""
    port = apis.free_port()
    started.append(start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log))
    wait("moto", lambda: listens(port), started[-1])
    return f"http://127.0.0.1:{port}"


def event_bus(moto):
    """Makes the bus, with two rules: all of it comes to the queue everything, and what the example's rule is for to the
    queue example."""
    events, queues = client("events", moto), client("sqs", moto)
    events.create_event_bus(Name=BUS)
    with open(RULE, encoding="utf-8") as file:
        example = yaml_parse(file.read())["Resources"]["Rule"]["Properties"]["EventPattern"]
    for name, pattern in {"everything": {"account": [{"exists": True}]}, "example": example}.items():
        queue = queues.create_queue(QueueName=name)["QueueUrl"]
        arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name=name, EventBusName=BUS, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])


def client(service, url, caller="local"):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=caller, aws_secret_access_key="local")


def compare_tables(resources, dynamodb):
    """The tables that latchkeyd makes must be those of the template, which nobody else would look at here."""
    described = client("dynamodb", dynamodb)

    def shape(table):
        indexes = [{k: i[k] for k in ("IndexName", "KeySchema", "Projection")} for i in table.get("GlobalSecondaryIndexes", [])]
        return {"AttributeDefinitions": sorted(table["AttributeDefinitions"], key=str), "KeySchema": table["KeySchema"],
                "GlobalSecondaryIndexes": sorted(indexes, key=str), "Stream": table.get("StreamSpecification", {}).get("StreamViewType")}

    for name, table in TABLES.items():
        ours, there = shape(resources[name]["Properties"]), shape(described.describe_table(TableName=table)["Table"])
        if json.dumps(ours, sort_keys=True) != json.dumps(there, sort_keys=True):
            raise apis.Refused(f"{name}: the template has {json.dumps(ours)}, and latchkeyd made {json.dumps(there)}")


def bound(template, build, dynamodb, moto, log):
    """The functions, each of which reaches DynamoDB Local and moto only as far as its policies let it, and where they reach
    the tables."""
    key = client("kms", moto).create_key()["KeyMetadata"]["KeyId"]
    policies = permissions.Permissions(template, {**TABLES, "SealingKey": key, "Events": BUS}, log)
    tables, others = (f"http://127.0.0.1:{permissions.Server(policies, int(url.rpartition(':')[2])).server_port}" for url in (dynamodb, moto))
    return apis.Functions(template, build, {
        "LATCHKEY_DYNAMODB_ENDPOINT": tables, "LATCHKEY_KEYS_TABLE": TABLES["Keys"], "LATCHKEY_AUDIT_TABLE": TABLES["Audit"],
        "LATCHKEY_CHAIN_TABLE": TABLES["Chain"], "LATCHKEY_KMS_ENDPOINT": others, "LATCHKEY_SEALING_KEY_ID": key,
        "LATCHKEY_EVENTBRIDGE_ENDPOINT": others, "LATCHKEY_EVENT_BUS": BUS, "LATCHKEY_SECRETSMANAGER_ENDPOINT": others}, log), tables


def together(doors, management):
    """One application of both: the doors' routes, and everything else at the management API."""

    def application(environ, start_response):
        adapter = doors.url_map.bind_to_environ(environ)
        try:
            adapter.match()
        except HTTPException:
            return management(environ, start_response)
        return doors(environ, start_response)

    return application


class Scheduler(threading.Thread):
    """Runs the functions that have a schedule, one after another, with the event in functions/NAME/event.json, and writes
    into the log what they answer. A model of EventBridge Scheduler, which knows one schedule: every so many seconds."""

    def __init__(self, template, functions, every, log):
        super().__init__(daemon=True)
        self.functions, self.every, self.log, self.over = functions, every, log, threading.Event()
        self.events = {}
        for name, r in template["Resources"].items():
            if any(e["Type"] == "ScheduleV2" for e in r.get("Properties", {}).get("Events", {}).values()):
                with open(os.path.join(FUNCTIONS, name.lower(), "event.json"), encoding="utf-8") as file:
                    self.events[name] = file.read()

    def run(self):
        while not self.over.is_set():
            for name, event in self.events.items():
                print("SCHEDULED:", name, "answers", self.functions.by_name[name].invoke(event), file=self.log, flush=True)
            self.over.wait(self.every)

    def stop(self):
        self.over.set()
        self.join(60)


class Stream(threading.Thread):
    """Gives a function the records of the stream that the template maps to it, in order and in batches, and again what it
    reports as failed. A model of Lambda's event source mapping: it reads with the function's own permission, halves a batch
    that failed as a whole, and after some attempts leaves a record alone, which it writes into the log in the queue's place."""

    ATTEMPTS = 10

    def __init__(self, mapping, dynamodb, functions, log):
        super().__init__(daemon=True)
        self.name, self.batch = mapping["FunctionName"]["Ref"], mapping["BatchSize"]
        table = TABLES[mapping["EventSourceArn"]["Fn::GetAtt"][0]]
        self.source = client("dynamodbstreams", dynamodb, self.name)
        self.arn = self.source.list_streams(TableName=table)["Streams"][0]["StreamArn"]
        self.function, self.log, self.over = functions.by_name[self.name], log, threading.Event()

    def run(self):
        iterators, ended = {}, set()
        while not self.over.is_set():
            for shard in self.source.describe_stream(StreamArn=self.arn)["StreamDescription"]["Shards"]:
                if shard["ShardId"] not in iterators and shard.get("ParentShardId") in ended | {None}:
                    iterators[shard["ShardId"]] = self.source.get_shard_iterator(
                        StreamArn=self.arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            for shard, iterator in iterators.items():
                if iterator:
                    read = self.source.get_records(ShardIterator=iterator)
                    self.give([record(r, self.arn) for r in read["Records"]])
                    iterators[shard] = read.get("NextShardIterator")
                else:
                    ended.add(shard)
            self.over.wait(0.2)

    def give(self, records):
        size, attempts = self.batch, 0
        while records and not self.over.is_set():
            given = records[:size]
            done, whole = handled(given, self.function.invoke(json.dumps({"Records": given})))
            records = records[done:]
            if done == len(given):
                size, attempts = self.batch, 0
            elif whole and len(given) > 1:
                size = len(given) // 2
            elif done == 0:
                attempts += 1
                if attempts == self.ATTEMPTS:
                    print("UNPUBLISHED:", given[0]["dynamodb"]["SequenceNumber"], file=self.log, flush=True)
                    records, attempts = records[1:], 0

    def stop(self):
        self.over.set()
        self.join(60)


def record(read, arn):
    """A record as a function gets it."""
    def plain(value):
        return base64.b64encode(value).decode() if isinstance(value, bytes) else int(value.timestamp())
    return json.loads(json.dumps({**read, "eventSourceARN": arn}, default=plain))


def handled(given, answer):
    """How many of the first records a function's answer says were handled, and whether all of them failed together."""
    answer = json.loads(answer) or {}
    if "errorMessage" in answer:
        return 0, True
    failed = {f["itemIdentifier"] for f in answer.get("batchItemFailures") or []}
    numbers = [r["dynamodb"]["SequenceNumber"] for r in given]
    if not failed <= set(numbers):  # such as none: Lambda takes that for a failure of all
        return 0, True
    return min((numbers.index(f) for f in failed), default=len(given)), False


def invocations(functions):
    """Lambda's Invoke, for whoever calls a function directly."""
    application = flask.Flask("lambda")

    @application.post("/2015-03-31/functions/<name>/invocations")
    def invoke(name):
        answer = functions.by_name[name].invoke(flask.request.get_data(as_text=True))
        return flask.Response(answer, headers={"X-Amz-Function-Error": "Unhandled"} if '"errorMessage"' in answer else {})

    return application


def announce(path, ready):
    """Writes the ready file, whole at once and for its owner alone."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=folder)  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(ready, file)
    os.replace(fresh, path)


def main(template_path, build, ready_path, port, dynamodb_folder, latchkeyd):
    def told(*_):
        raise KeyboardInterrupt

    for ending in ENDINGS:
        signal.signal(ending, told)
    with open(template_path, encoding="utf-8") as file:
        template = yaml_parse(file.read())
    template["Parameters"]["AllowedOrigins"]["Default"] = os.environ.get("ORIGINS", "")
    started, functions, threads = [], None, []
    log = open(os.path.join(os.path.dirname(build), "log"), "w", encoding="utf-8")  # open until the process ends
    try:
        dynamodb = database(started, log, dynamodb_folder)
        developed = develop(started, log, latchkeyd, "-dynamodb", dynamodb)
        stop(started.pop())
        compare_tables(template["Resources"], dynamodb)
        moto = services(started, log)
        event_bus(moto)
        issuer = develop(started, log, latchkeyd)
        template["Parameters"]["Issuers"]["Default"] = json.dumps([{"issuer": issuer["issuer_url"], "audience": ["latchkey"]}])

        functions, tables = bound(template, os.path.abspath(build), dynamodb, moto, log)
        doors = apis.serve(template, "Doors", functions, port)
        management = apis.serve(template, "Management", functions, port)
        server = make_server("127.0.0.1", port, together(doors, management), threaded=True, request_handler=Quiet)
        url = f"http://127.0.0.1:{server.port}"
        threads.append(Scheduler(template, functions, float(os.environ.get("EVERY") or 60), log))
        threads += [Stream(r["Properties"], tables, functions, log) for r in template["Resources"].values()
                    if r["Type"] == "AWS::Lambda::EventSourceMapping"]
        calls = make_server("127.0.0.1", 0, invocations(functions), threaded=True, request_handler=Quiet)
        for thread in threads + [threading.Thread(target=calls.serve_forever, daemon=True)]:
            thread.start()
        announce(ready_path, {"url": url, "organization_id": developed["organization_id"],
                              "management_key": developed["management_key"], "jwt": issuer["jwt"], "issuer_url": issuer["issuer_url"],
                              "dynamodb": dynamodb, "aws": moto, "lambda": f"http://127.0.0.1:{calls.server_port}"})
        print(f"\nLatchkey serves at {url}, as SAM would deploy it. Its management key and an admin's token are in {ready_path},\n"
              f"its log in {log.name}. Other people sign in at {issuer['issuer_url']}.\n"
              "Ctrl-C stops it.\n", flush=True)
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except apis.Refused as refused:
        print("sam-local:", refused, file=sys.stderr)
        return 1
    finally:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        if os.path.exists(ready_path):
            os.remove(ready_path)
        for thread in threads:
            if thread.is_alive():
                thread.stop()
        if functions:
            functions.stop()
        for process in reversed(started):
            stop(process)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6]))
