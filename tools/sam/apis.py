"""The APIs of a SAM template on this machine, without containers.

The SAM CLI reads the template and makes the events (routes, authorizers, stage variables, environment), as for sam local
start-api. Each function's built bootstrap runs as a process of this machine under AWS's Runtime Interface Emulator, which
comes with the SAM CLI. What API Gateway does and the SAM CLI leaves out is added here: gateway responses, 401 for an
authorizer's Unauthorized, a context of strings, the renaming of WWW-Authenticate. It is a model of AWS, not AWS.
"""
import copy
import json
import logging
import os
import platform
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import flask
import samcli
from samcli.lib.providers.api_collector import ApiCollector
from samcli.lib.providers.api_provider import ApiProvider
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider
from samcli.local.apigw.authorizers.lambda_authorizer import LambdaAuthorizer
from samcli.local.apigw.exceptions import LambdaResponseParseException
from samcli.local.apigw.local_apigw_service import LocalApigwService
from samcli.local.apigw.route import Route

import rules

EMULATOR = os.path.join(os.path.dirname(samcli.__file__), "local", "rapid",
                        "aws-lambda-rie-" + {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()])
START_PATIENCE = 10

logging.getLogger("samcli.lib.providers.api_collector").setLevel(logging.ERROR)  # it warns that it is not AWS


def apart(routes, together=ApiCollector.dedupe_function_routes):
    """The SAM CLI makes one route of all methods that a function has at a path, with the authorizer of any one of them. Here
    those without an authorizer, the preflights, stay apart from the others."""
    return together([r for r in routes if r.authorizer_name]) + together([r for r in routes if not r.authorizer_name])


ApiCollector.dedupe_function_routes = staticmethod(apart)


class Refused(Exception):
    """The template cannot be served as AWS would serve it."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Function:
    """A function's process, started by its first event. It takes one event at a time, as on Lambda."""

    def __init__(self, name, bootstrap, timeout, environment, log):
        self.name, self.bootstrap, self.timeout, self.log = name, bootstrap, timeout, log
        self.environment = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": "local",
                            "PATH": "/usr/bin:/bin", "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
                            **{k: str(v) for k, v in environment.items()}}
        self.process, self.busy = None, threading.Lock()

    def start(self):
        self.port = free_port()
        self.process = subprocess.Popen(
            [EMULATOR, "--log-level", "error", "--runtime-interface-emulator-address", f"127.0.0.1:{self.port}",
             "--runtime-api-address", f"127.0.0.1:{free_port()}", self.bootstrap],
            env=self.environment, cwd=os.path.dirname(self.bootstrap), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log, start_new_session=True)
        deadline = time.monotonic() + START_PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Refused(f"{self.name}: the emulator did not start") from error
                time.sleep(0.02)

    def invoke(self, event):
        """The function's answer, or the error that it reported, which has an errorMessage."""
        with self.busy:
            if self.process is None:
                self.start()
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/2015-03-31/functions/function/invocations", event.encode())
            try:
                with urllib.request.urlopen(request, timeout=self.timeout + START_PATIENCE) as answer:
                    return answer.read().decode()
            except urllib.error.HTTPError as failed:
                return failed.read().decode()

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGTERM)  # the emulator ends its function and then itself
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Functions:
    """The functions of a template. It is what the SAM CLI calls a Lambda runner. What the template cannot know of this
    machine, environment gives to those functions that have a variable of that name."""

    def __init__(self, template, build, environment, log):
        stacks, _ = SamLocalStackProvider.get_stacks(template_dictionary=template)
        self.by_name = {}
        for f in SamFunctionProvider(stacks, ignore_code_extraction_warnings=True).get_all():
            variables = {name: environment.get(name, value) for name, value in f.environment["Variables"].items()}
            self.by_name[f.name] = Function(f.name, os.path.join(build, f.name, "bootstrap"), f.timeout, variables, log)
        self.last_error = threading.local()

    def is_debugging(self):
        return False

    def invoke(self, name, event, stdout, **_):
        answer = self.by_name[name].invoke(event)
        self.last_error.text = answer
        stdout.write_str(answer)
        stdout.flush()

    def stop(self):
        for function in self.by_name.values():
            function.stop()


def serve(template, api, functions, port):
    """The Flask application of one API of the template."""
    provider = ApiProvider(SamLocalStackProvider.get_stacks(template_dictionary=only(template, api))[0])
    properties = template["Resources"][api]["Properties"]
    gateway = Gateway(provider.api, functions, properties.get("GatewayResponses", {}), port)
    for route in provider.api.routes:
        guarded = isinstance(route.authorizer_object, LambdaAuthorizer) and route.authorizer_object.lambda_name in functions.by_name
        opened = {f"{api} {method.lower()} {route.path}" for method in route.methods}
        if properties.get("Auth") and not guarded and not opened <= rules.OPEN:
            raise Refused(f"{api}: the SAM CLI does not see the authorizer of {route.path}, which would be open to everyone")
    gateway.create()
    return gateway._app


def only(template, api):
    """The template with one API alone: of several, the SAM CLI mixes the stage variables."""
    template = copy.deepcopy(template)
    template.pop("Outputs", None)
    resources = template["Resources"]
    for name, resource in list(resources.items()):
        events = resource.get("Properties", {}).get("Events", {})
        for event, value in list(events.items()):
            if {"Ref": api} not in (value["Properties"].get("RestApiId"), value["Properties"].get("ApiId")):
                del events[event]
        if name != api and resource["Type"] in ("AWS::Serverless::Api", "AWS::Serverless::HttpApi"):
            del resources[name]
    return template


class Gateway(LocalApigwService):
    """One API as API Gateway would serve it."""

    def __init__(self, api, functions, responses, port):
        super().__init__(api, functions, port=port, host="127.0.0.1")
        self.functions, self.responses = functions, responses

    def _construct_error_handling(self):
        for status in (404, 405):
            self._app.register_error_handler(status, lambda _: self.unknown_route())
        self._app.register_error_handler(Exception, self.broken)

    def unknown_route(self):
        return self.answer("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")

    def broken(self, error):
        self._app.logger.error("%s: %s", type(error).__name__, error)
        return self.answer("DEFAULT_5XX", 502, "Internal server error")

    def _request_handler(self, **_):
        request = flask.request
        try:
            route = self._get_current_route(request)
        except KeyError:  # HEAD where there is GET alone
            return self.unknown_route()
        event = self._generate_lambda_event(request, route, request.method, request.endpoint)
        if route.authorizer_object:
            if not self._valid_identity_sources(request, route):
                return self.answer("UNAUTHORIZED", 401, "Unauthorized")
            refused = self.ask(request, route, event)
            if refused:
                return refused
        http = route.event_type == Route.HTTP
        if http and "headers" in event:
            event["headers"] = {name.lower(): value for name, value in event["headers"].items()}
        answer = self._invoke_lambda_function(route.function_name, event)
        if http:
            status, headers, body = self._parse_v2_payload_format_lambda_output(answer, self.api.binary_media_types, request)
            headers["Apigw-Requestid"] = str(uuid.uuid4())
        else:
            status, headers, body = self._parse_v1_payload_format_lambda_output(
                answer, self.api.binary_media_types, request, route.event_type)
            for value in headers.getlist("WWW-Authenticate"):
                headers.add("x-amzn-Remapped-WWW-Authenticate", value)
            headers.remove("WWW-Authenticate")
        return self.service_response(body, headers, status)

    def ask(self, request, route, event):
        """Asks the route's authorizer, and adds its context to the event. What it returns is the refusal."""
        authorizer = route.authorizer_object
        question = self._generate_lambda_authorizer_event(request, route, authorizer)
        try:
            decision = self._invoke_lambda_function(authorizer.lambda_name, question)
        except LambdaResponseParseException:
            if json.loads(self.functions.last_error.text).get("errorMessage") == "Unauthorized":
                return self.answer("UNAUTHORIZED", 401, "Unauthorized")
            return self.answer("AUTHORIZER_FAILURE", 500, "Internal server error")
        context = {name: value if isinstance(value, str) else json.dumps(value)
                   for name, value in authorizer.get_context(decision).items()}
        if not authorizer.is_valid_response(decision, self._create_method_arn(request, route.event_type)):
            return self.answer("ACCESS_DENIED", 403, "User is not authorized to access this resource", context)
        event.setdefault("requestContext", {})["authorizer"] = context
        return None

    def answer(self, kind, status, message, authorizer=None):
        """What API Gateway answers of itself, as the template's GatewayResponses shape it."""
        shape = self.responses.get(kind) or self.responses.get("DEFAULT_5XX" if status >= 500 else "DEFAULT_4XX") or {}
        known = {"requestId": str(uuid.uuid4()), "error.message": message, "error.messageString": json.dumps(message)}
        known.update({"authorizer." + name: value for name, value in (authorizer or {}).items()})
        body = json.dumps({"message": message})
        for template in shape.get("ResponseTemplates", {}).values():
            body = re.sub(r"\$context\.([\w.]*\w)", lambda m: known.get(m[1], ""), template)
        headers = {"Content-Type": "application/json"}
        for name, value in shape.get("ResponseParameters", {}).get("Headers", {}).items():
            headers[name] = value[1:-1] if value.startswith("'") else known.get(value.removeprefix("context."), "")
        return flask.Response(body, int(shape.get("StatusCode", status)), headers)
