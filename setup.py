"""Packaging. Version ranges are loose on purpose: Ascend hosts come with their own TensorFlow 1.15;
constraints.txt has the tested pins."""
import os
import re

from setuptools import setup

ETL = ["apache-beam>=2.48,<2.49", "jieba>=0.42.1,<0.43", "rjieba==0.1.11"]
SERVE = ["starlette>=0.29,<0.30", "uvicorn[standard]>=0.22,<0.23", "grpcio>=1.48",
         "grpcio-health-checking>=1.48,<1.49",
         "tensorflow-serving-api>=1.15,<1.16", "prometheus-client>=0.17,<0.18", "orjson>=3.9,<3.10"]
TEST = ["pytest>=7.4,<8", "hypothesis>=6.79,<7", "pytest-timeout>=2.1", "pytest-xdist>=3.5,<4",
        "httpx>=0.24,<0.25", "scikit-learn>=1.0,<1.1", "seqeval==1.2.2"]

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "README.md"), encoding="utf-8") as stream:
    README = stream.read()
with open(os.path.join(HERE, "albert_config", "__init__.py"), encoding="utf-8") as stream:
    (VERSION,) = re.findall('^VERSION = "(.*)"', stream.read(), re.MULTILINE)

setup(
    name="chinese-albert",
    version=VERSION,
    description="Chinese ALBERT: sample building, pretraining, fine-tuning and serving on TensorFlow 1.15 "
    "and Ascend", long_description=README,
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "THIRD_PARTY_NOTICES.md"],
    classifiers=["License :: OSI Approved :: Apache Software License",
                 "Programming Language :: Python :: 3.7", "Natural Language :: Chinese (Simplified)",
                 "Topic :: Scientific/Engineering :: Artificial Intelligence"], python_requires=">=3.7,<3.8",
    packages=["albert_config",
              "etl", "etl.common", "etl.reports", "etl.text", "etl.records", "etl.samples", "etl.beam",
              "etl.building",
              "estimator", "estimator.model", "estimator.optimization", "estimator.weights", "estimator.npu",
              "estimator.data", "estimator.training", "estimator.pretraining", "estimator.finetuning",
              "estimator.tools", "estimator.launching",
              "serving", "serving.exporting", "serving.service"],
    package_data={"albert_config": ["*.json", "vocab.txt"], "etl": ["sample/*.txt"],
                  "estimator": ["sample/*.tsv"], "estimator.npu": ["mixlist.json"],
                  "serving.service": ["page.html"]},
    install_requires=["tensorflow>=1.15,<1.16", "numpy>=1.17,<1.20", "protobuf>=3.8,<3.21",
                      "google-crc32c>=1.3", "sentencepiece>=0.1.99"],
    entry_points={"console_scripts": ["etl-worker = etl.beam.worker:main"]},
    extras_require={"etl": ETL, "serve": SERVE, "test": TEST, "all": ETL + SERVE + TEST},
)
