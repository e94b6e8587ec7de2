"""What apis.py adds to the SAM CLI: the answers of API Gateway, and no route that is open by mistake."""
import copy
import json
import os
import threading
import unittest

from samcli.yamlhelper import yaml_parse

import apis

with open(os.path.join(os.path.dirname(__file__), "..", "..", "template.yaml"), encoding="utf-8") as file:
    TEMPLATE = yaml_parse(file.read())
KEY = {"Authorization": "Bearer x"}


def decision(effect, **context):
    return {"principalId": "x", "context": context, "policyDocument": {"Version": "2012-10-17", "Statement": [
        {"Effect": effect, "Action": "execute-api:Invoke", "Resource": "*"}]}}


class Functions:
    """Functions that answer what they are told to, and note what they are asked."""

    by_name = {name: None for name, r in TEMPLATE["Resources"].items() if r["Type"] == "AWS::Serverless::Function"}

    def __init__(self, **answers):
        self.answers, self.asked, self.last_error = answers, {}, threading.local()

    def is_debugging(self):
        return False

    def invoke(self, name, event, stdout, **_):
        self.asked[name] = json.loads(event)
        self.last_error.text = json.dumps(self.answers[name])
        stdout.write_str(self.last_error.text)


def client(api, functions):
    return apis.serve(TEMPLATE, api, functions, 3000).test_client()


class Management(unittest.TestCase):
    def answer(self, status, code, method="GET", path="/v1/api-keys", headers=None, **answers):
        functions = Functions(**answers)
        answer = client("Management", functions).open(path, method=method, headers=KEY if headers is None else headers)
        self.assertEqual((answer.status_code, answer.content_type), (status, "application/problem+json"))
        self.assertEqual((answer.json["code"], answer.json["request_id"]), (code, answer.headers["X-Request-Id"]))
        self.assertNotIn("List", functions.asked)
        return answer

    def test_no_key_is_asked_about_by_nobody(self):
        answer = self.answer(401, "unknown", headers={})
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Bearer realm="latchkey"')

    def test_unauthorized_is_401(self):
        answer = self.answer(401, "unknown", Authorizer={"errorMessage": "Unauthorized", "errorType": "errorString"})
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Bearer realm="latchkey"')

    def test_every_other_error_of_the_authorizer_is_503(self):
        answer = self.answer(503, "unavailable", Authorizer={"errorMessage": "out of reach", "errorType": "errorString"})
        self.assertEqual(answer.headers["Retry-After"], "1")

    def test_a_denial_is_403_with_the_code_of_the_context(self):
        self.answer(403, "rate_limited", Authorizer=decision("Deny", code="rate_limited"))

    def test_what_is_no_route_is_404(self):
        for method, path in (("GET", "/v1/nothing"), ("PUT", "/v1/api-keys"), ("HEAD", "/v1/api-keys")):
            answer = client("Management", Functions()).open(path, method=method, headers=KEY)
            self.assertEqual((answer.status_code, answer.content_type), (404, "application/problem+json"))

    def test_the_function_gets_the_context_as_strings_and_its_challenge_is_renamed(self):
        functions = Functions(Authorizer=decision("Allow", code="valid", n=1), List={
            "statusCode": 401, "headers": {"WWW-Authenticate": "Bearer"}, "body": "[]"})
        answer = client("Management", functions).get("/v1/api-keys", headers=KEY)
        self.assertEqual(functions.asked["List"]["requestContext"]["authorizer"], {"principalId": "x", "code": "valid", "n": "1"})
        self.assertEqual(answer.headers["x-amzn-Remapped-WWW-Authenticate"], "Bearer")
        self.assertNotIn("WWW-Authenticate", answer.headers)

    def test_the_authorizer_gets_the_stage_variables_of_its_api(self):
        functions = Functions(Authorizer=decision("Deny"))
        client("Management", functions).get("/v1/api-keys", headers=KEY)
        self.assertEqual(functions.asked["Authorizer"]["stageVariables"], {"latchkey_door": "management"})

    def test_a_preflight_reaches_its_function_without_a_key_and_nothing_else_does(self):
        for path, function, method in (
                ("/v1/api-keys", "Create", "POST"), ("/v1/api-keys/1", "Get", "PATCH"), ("/v1/api-keys/1/rotate", "Rotate", "POST"),
                ("/v1/api-keys/1/rotate/end", "Rotate", "POST"), ("/v1/api-keys/1/rotate/extend", "Rotate", "POST"),
                ("/v1/api-keys/1/archive", "Archive", "POST"), ("/v1/api-keys/1/reactivate", "Reactivate", "PUT"),
                ("/v1/keys", "Create", "GET"), ("/v1/keys/1", "Revoke", "DELETE"), ("/v1/audit", "AuditTrail", "GET"),
                ("/v1/organization", "Organization", "GET"), ("/v1/organizations/1", "Organization", "PUT"),
                ("/organizations/api-keys", "Create", "POST"), ("/organizations/api-keys/1", "Archive", "DELETE"),
                ("/organizations/api-keys/1/reactivate", "Reactivate", "PUT")):
            functions = Functions(**{function: {"statusCode": 204, "headers": {"Vary": "Origin"}, "body": ""}})
            answer = client("Management", functions).options(path)
            self.assertEqual((answer.status_code, answer.headers["Vary"], list(functions.asked)), (204, "Origin", [function]))
            self.assertEqual(functions.asked[function]["httpMethod"], "OPTIONS")
            self.answer(401, "unknown", method, path, headers={})

    def test_the_envelope_reaches_its_functions_unasked_and_they_answer_in_its_form(self):
        for method, path, function in (("POST", "", "Create"), ("GET", "", "List"), ("DELETE", "/lk_live_1", "Revoke"),
                                       ("OPTIONS", "", "Create"), ("OPTIONS", "/lk_live_1", "Revoke")):
            for headers in ({}, KEY):
                functions = Functions(**{function: {"statusCode": 401, "headers": {"Content-Type": "application/json"}, "body": "{}"}})
                answer = client("Management", functions).open("/envelope/v1/api-keys" + path, method=method, headers=headers)
                self.assertEqual((answer.status_code, answer.text, list(functions.asked)), (401, "{}", [function]))
                self.assertNotIn("authorizer", functions.asked[function]["requestContext"])

    def test_an_authorizer_that_the_sam_cli_would_skip_is_refused(self):
        broken = copy.deepcopy(TEMPLATE)
        authorizers = broken["Resources"]["Management"]["Properties"]["Auth"]["Authorizers"]
        authorizers["Latchkey"]["FunctionArn"] = {"Ref": "Authorizer.Alias"}
        with self.assertRaises(apis.Refused):
            apis.serve(broken, "Management", Functions(), 3000)


class Doors(unittest.TestCase):
    def test_the_function_asks_itself_and_its_challenge_stays(self):
        functions = Functions(Verify={"statusCode": 401, "headers": {"WWW-Authenticate": "Bearer"}, "body": ""})
        answer = client("Doors", functions).get("/v1/authorize", headers={"X-Odd": "1"})
        self.assertEqual((answer.status_code, answer.headers["WWW-Authenticate"]), (401, "Bearer"))
        event = functions.asked["Verify"]
        self.assertEqual((event["version"], event["headers"]["x-odd"], event["stageVariables"]), ("2.0", "1", None))

    def test_a_preflight_reaches_the_function(self):
        for path in ("verify", "me"):
            functions = Functions(Verify={"statusCode": 204, "headers": {"Vary": "Origin"}, "body": ""})
            answer = client("Doors", functions).options("/v1/api-keys/" + path)
            self.assertEqual((answer.status_code, answer.headers["Vary"]), (204, "Origin"))
            self.assertEqual(functions.asked["Verify"]["requestContext"]["http"]["method"], "OPTIONS")


if __name__ == "__main__":
    unittest.main()
