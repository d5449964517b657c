"""Asks by gRPC, with whatever stubs and grpcio are on the path: `ask.py PORT`, questions and answers in JSON
on standard input and output."""
import json
import sys

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

STRING = 7                                     # TensorFlow's number of the type
TIMEOUT_SECONDS = 60


def main():
    questions = json.load(sys.stdin)
    answers = []
    with grpc.insecure_channel("127.0.0.1:" + sys.argv[1]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for asked in questions["asks"]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = asked["name"]
            if "version" in asked:
                request.model_spec.version.value = asked["version"]
            if "label" in asked:
                request.model_spec.version_label = asked["label"]
            for name, texts in questions["texts"].items():
                tensor = request.inputs[name]
                tensor.dtype = STRING
                tensor.tensor_shape.dim.add().size = len(texts)
                tensor.string_val.extend(text.encode("utf-8") for text in texts)
            found = stub.Predict(request, TIMEOUT_SECONDS)
            answers.append({"version": found.model_spec.version.value,
                            "labels": [label.decode("utf-8") for label in found.outputs["label"].string_val],
                            "probabilities": list(found.outputs["probabilities"].float_val)})
    json.dump(answers, sys.stdout)


main()
