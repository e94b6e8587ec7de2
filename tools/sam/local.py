"""Runs the deployed shape of the service on this machine until it is told to stop; tools/sam/local calls it.

    local.py TEMPLATE BUILD READY PORT DYNAMODB LATCHKEYD    ORIGINS in the environment is the parameter AllowedOrigins,
                                                             EVERY the seconds between scheduled runs (default 60)

It starts DynamoDB Local, lets latchkeyd make the tables, the organization org_dev and a management key, starts moto as KMS
and a second latchkeyd as the issuer of people's tokens, and then serves both APIs of the template at one address of this
machine, and runs those functions that have a schedule. Each function may do with the tables and the key what its policies say. What it started it stops, by process id.
"""
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
from samcli.yamlhelper import yaml_parse
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

import apis
import permissions

PATIENCE = 30
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TABLES = {"Keys": "latchkey-keys", "Audit": "latchkey-audit", "Chain": "latchkey-chain"}


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


def key_service(started, log):
    """Starts moto, which plays KMS, and makes a key there. What it returns is its port and the key's id."""
    port = apis.free_port()
    started.append(start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log))
    wait("moto", lambda: listens(port), started[-1])
    key = client("kms", f"http://127.0.0.1:{port}").create_key()
    return port, key["KeyMetadata"]["KeyId"]


def client(service, url):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local")


def compare_tables(resources, dynamodb):
    """The tables that latchkeyd makes must be those of the template, which nobody else would look at here."""
    described = client("dynamodb", dynamodb)

    def shape(table):
        indexes = [{k: i[k] for k in ("IndexName", "KeySchema", "Projection")} for i in table.get("GlobalSecondaryIndexes", [])]
        return {"AttributeDefinitions": sorted(table["AttributeDefinitions"], key=str), "KeySchema": table["KeySchema"],
                "GlobalSecondaryIndexes": sorted(indexes, key=str)}

    for name, table in TABLES.items():
        ours, there = shape(resources[name]["Properties"]), shape(described.describe_table(TableName=table)["Table"])
        if json.dumps(ours, sort_keys=True) != json.dumps(there, sort_keys=True):
            raise apis.Refused(f"{name}: the template has {json.dumps(ours)}, and latchkeyd made {json.dumps(there)}")


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
                with open(os.path.join(os.path.dirname(__file__), "../../functions", name.lower(), "event.json"), encoding="utf-8") as file:
                    self.events[name] = file.read()

    def run(self):
        while not self.over.is_set():
            for name, event in self.events.items():
                print("SCHEDULED:", name, "answers", self.functions.by_name[name].invoke(event), file=self.log, flush=True)
            self.over.wait(self.every)

    def stop(self):
        self.over.set()
        self.join(60)


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
    started, functions, scheduler = [], None, None
    log = open(os.path.join(os.path.dirname(build), "log"), "w", encoding="utf-8")  # open until the process ends
    try:
        dynamodb_port = apis.free_port()
        dynamodb = f"http://127.0.0.1:{dynamodb_port}"
        started.append(start(["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m",
                              "-Djava.library.path=" + dynamodb_folder, "-cp", dynamodb_folder + "/*",
                              "software.amazon.dynamodb.services.local.main.ServerRunner", "-inMemory", "-sharedDb",
                              "-disableTelemetry", "-port", str(dynamodb_port)], log))
        wait("DynamoDB Local", lambda: listens(dynamodb_port), started[0])
        developed = develop(started, log, latchkeyd, "-dynamodb", dynamodb)
        stop(started.pop())
        compare_tables(template["Resources"], dynamodb)
        kms_port, sealing_key = key_service(started, log)
        issuer = develop(started, log, latchkeyd)
        template["Parameters"]["Issuers"]["Default"] = json.dumps([{"issuer": issuer["issuer_url"], "audience": ["latchkey"]}])

        policies = permissions.Permissions(template, {**TABLES, "SealingKey": sealing_key}, log)
        tables, kms = permissions.Server(policies, dynamodb_port), permissions.Server(policies, kms_port)
        functions = apis.Functions(template, os.path.abspath(build), {
            "LATCHKEY_DYNAMODB_ENDPOINT": f"http://127.0.0.1:{tables.server_port}", "LATCHKEY_KEYS_TABLE": TABLES["Keys"],
            "LATCHKEY_AUDIT_TABLE": TABLES["Audit"], "LATCHKEY_CHAIN_TABLE": TABLES["Chain"],
            "LATCHKEY_KMS_ENDPOINT": f"http://127.0.0.1:{kms.server_port}",
            "LATCHKEY_SEALING_KEY_ID": sealing_key}, log)
        doors = apis.serve(template, "Doors", functions, port)
        management = apis.serve(template, "Management", functions, port)
        server = make_server("127.0.0.1", port, together(doors, management), threaded=True, request_handler=Quiet)
        url = f"http://127.0.0.1:{server.port}"
        scheduler = Scheduler(template, functions, float(os.environ.get("EVERY") or 60), log)
        scheduler.start()
        announce(ready_path, {"url": url, "organization_id": developed["organization_id"],
                              "management_key": developed["management_key"], "jwt": issuer["jwt"], "issuer_url": issuer["issuer_url"], "dynamodb": dynamodb})
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
        if scheduler:
            scheduler.stop()
        if functions:
            functions.stop()
        for process in reversed(started):
            stop(process)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6]))
