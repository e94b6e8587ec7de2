"""Stands before DynamoDB Local, and moto as KMS, EventBridge and Secrets Manager, and lets each function do only what the
template's policies let it, as IAM does on AWS.

A function is known by its access key id, which is its name. Like rules.py, which reads the policies, this knows the forms of
policy that the template has and no others. It is a model of IAM, not IAM.
"""
import fnmatch
import http.client
import http.server
import json
import re
import threading

import rules

SERVICES = {"TrentService": "kms:", "AWSEvents": "events:", "secretsmanager": "secretsmanager:"}  # as they call themselves, and as IAM does
WRITES = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


def needs(operation, request):
    """What a request needs: action, table or table/index/name, and the partition, for each item that it names. Of KMS:
    action, key, and for what the encryption context says that it is. Of EventBridge: action and bus. Of Secrets Manager:
    action, Secrets, and the secret's name."""
    if operation.startswith("kms:"):
        return [(operation, request.get("KeyId", "*"), "latchkey" if request.get("EncryptionContext", {}).get("latchkey") else "")]
    if operation == "events:PutEvents":
        return [(operation, entry.get("EventBusName", "default").rpartition("/")[2], "") for entry in request["Entries"]]
    if operation.startswith("secretsmanager:"):
        return of_secret(operation, request)
    if operation == "TransactWriteItems":
        return [need for item in request["TransactItems"] for kind, write in item.items() for need in needs(WRITES[kind], write)]
    if operation == "BatchGetItem":
        return [(operation, table, key["pk"]["S"]) for table, some in request["RequestItems"].items() for key in some["Keys"]]
    table = request.get("TableName", "*")
    if operation == "Query" and "IndexName" in request:
        return [(operation, f"{table}/index/{request['IndexName']}", "")]
    if operation == "Query":
        name = re.match(r"\S+ = (:\w+)", request["KeyConditionExpression"])[1]
        return [(operation, table, request["ExpressionAttributeValues"][name]["S"])]
    if operation in ("DescribeStream", "GetShardIterator", "GetRecords"):
        named = re.search(r"table/([^/]+)/stream/", request.get("StreamArn") or request["ShardIterator"])
        return [(operation, (named[1] if named else "*") + "/stream", "")]
    if operation in WRITES.values() or operation == "GetItem":
        return [(operation, table, (request.get("Key") or request["Item"])["pk"]["S"])]
    return [(operation, table, "")]


def of_secret(operation, request):
    """What a request of Secrets Manager needs. An ARN ends in six characters that are not of the name; whoever makes a
    secret with tags also tags it."""
    name = request.get("SecretId") or request.get("Name") or "*"
    if name.startswith("arn:"):
        name = re.sub(r"-\w{6}$", "", name.split(":secret:")[-1])
    operations = [operation] + (["secretsmanager:TagResource"] if operation == "secretsmanager:CreateSecret" and request.get("Tags") else [])
    return [(o, rules.SECRETS, name) for o in operations]


class Permissions:
    """The permissions of a template's functions on its tables, its key and its bus, which have other names here."""

    def __init__(self, template, names, log):
        self.names, self.log = {there: name for name, there in names.items()}, log
        self.granted = {name: rules.granted({"Policies": [{"PolicyDocument": p} for p in r["Properties"]["Policies"]]})
                        for name, r in template["Resources"].items() if r["Type"] == "AWS::Serverless::Function"}

    def refused(self, function, operation, request):
        """The first need of a request that the function has no permission for, None if it has all."""
        for action, resource, bound in needs(operation, request):
            table, _, index = resource.partition("/")
            name = self.names.get(table, table) + ("/" + index if index else "")
            if not any(action == row[0] and row[1] in (name, "*") and fnmatch.fnmatchcase(bound, row[2] or "*")
                       for row in self.granted.get(function, ())):
                return f"{function} may not {action} {name} {bound}".strip()
        return None


class Server(http.server.ThreadingHTTPServer):
    """It stands before the service at a port of this machine: DynamoDB Local or moto."""

    daemon_threads = True

    def __init__(self, permissions, port):
        super().__init__(("127.0.0.1", 0), Handler)
        self.permissions, self.service = permissions, port
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A function that goes away needs no answer."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    onward = None  # this connection's own to the service

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        function = re.search(r"Credential=(\w+)/", self.headers["Authorization"])[1]
        service, _, operation = self.headers["X-Amz-Target"].rpartition(".")
        operation = SERVICES.get(service, "") + operation
        refused = self.server.permissions.refused(function, operation, json.loads(body))
        if refused:
            print("DENIED:", refused, file=self.server.permissions.log, flush=True)
            self.send(400, {"Content-Type": "application/x-amz-json-1.0"},
                      json.dumps({"__type": "com.amazon.coral.service#AccessDeniedException", "message": refused}).encode())
            return
        if self.onward is None:
            self.onward = http.client.HTTPConnection("127.0.0.1", self.server.service)
        self.onward.request("POST", self.path, body, dict(self.headers))
        answer = self.onward.getresponse()
        self.send(answer.status, dict(answer.headers), answer.read())

    def send(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
