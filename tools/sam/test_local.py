"""What local.py adds to moto: a stream's records come in order, and what fails comes again."""
import datetime
import io
import json
import threading
import unittest

import local


def records(*numbers):
    return [{"dynamodb": {"SequenceNumber": str(n)}} for n in numbers]


class Function:
    """It answers what it is told to, in turn, and notes which records it was given."""

    def __init__(self, *answers):
        self.answers, self.given = list(answers), []

    def invoke(self, event):
        self.given.append([int(r["dynamodb"]["SequenceNumber"]) for r in json.loads(event)["Records"]])
        return json.dumps(self.answers.pop(0) if self.answers else None)


def failed(*numbers):
    return {"batchItemFailures": [{"itemIdentifier": str(n)} for n in numbers]}


BROKEN = {"errorMessage": "broken"}


class Given(unittest.TestCase):
    def given(self, function, *numbers, batch=4):
        stream = local.Stream.__new__(local.Stream)
        stream.batch, stream.function, stream.log, stream.over = batch, function, io.StringIO(), threading.Event()
        stream.give(records(*numbers))
        return function.given, stream.log.getvalue()

    def test_in_batches(self):
        self.assertEqual(self.given(Function(), 1, 2, 3, 4, 5)[0], [[1, 2, 3, 4], [5]])

    def test_again_from_the_first_that_failed(self):
        self.assertEqual(self.given(Function(failed(3, 2), failed(4)), 1, 2, 3, 4)[0], [[1, 2, 3, 4], [2, 3, 4], [4]])

    def test_in_halves_when_all_failed(self):
        self.assertEqual(self.given(Function(BROKEN, BROKEN), 1, 2, 3, 4)[0], [[1, 2, 3, 4], [1, 2], [1], [2, 3, 4]])

    def test_all_again_when_the_answer_names_another(self):
        self.assertEqual(self.given(Function(failed(9)), 1, 2)[0], [[1, 2], [1], [2]])

    def test_left_alone_at_last(self):
        given, told = self.given(Function(*[failed(1)] * 10), 1, 2)
        self.assertEqual((given[-1], told), ([2], "UNPUBLISHED: 1\n"))

    def test_a_record_is_as_lambda_has_it(self):
        then = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
        read = {"eventName": "INSERT", "dynamodb": {"ApproximateCreationDateTime": then, "NewImage": {"x": {"B": b"\x00"}}}}
        self.assertEqual(local.record(read, "arn"), {"eventName": "INSERT", "eventSourceARN": "arn", "dynamodb": {
            "ApproximateCreationDateTime": 1795305600, "NewImage": {"x": {"B": "AA=="}}}})


if __name__ == "__main__":
    unittest.main()
