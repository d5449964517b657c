// Asks by gRPC: node ask.js PORT PROTOSET, questions and answers in JSON on standard input and output.
"use strict";
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [port, protoset] = process.argv.slice(2);
const services = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(protoset), { keepCase: true, longs: Number });
const { PredictionService } = grpc.loadPackageDefinition(services).tensorflow.serving;
const client = new PredictionService(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
const { asks, texts } = JSON.parse(fs.readFileSync(0, "utf-8"));

function ask({ name, version, label }) {
  const model_spec = { name };
  if (version) model_spec.version = { value: version };
  if (label) model_spec.version_label = label;
  // A protoset does not tell proto-loader which fields are maps; on the wire they are lists of entries.
  const inputs = Object.entries(texts).map(([key, values]) => ({ key, value: {
    dtype: "DT_STRING", tensor_shape: { dim: [{ size: values.length }] }, string_val: values.map(text => Buffer.from(text)) } }));
  return new Promise((resolve, reject) => client.Predict({ model_spec, inputs }, { deadline: Date.now() + 60000 },
    (error, found) => {
      if (error) return reject(error);
      const outputs = Object.fromEntries(found.outputs.map(({ key, value }) => [key, value]));
      resolve({ version: found.model_spec.version.value, labels: outputs.label.string_val.map(String),
                probabilities: outputs.probabilities.float_val });
    }));
}

(async () => {
  const answers = [];
  for (const asked of asks) answers.push(await ask(asked));
  process.stdout.write(JSON.stringify(answers));
  client.close();
})();
