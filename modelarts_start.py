"""The start file of a training job on ModelArts: --stage, --data_url, --train_url, the trainer's flags."""
from estimator.launching import modelarts

if __name__ == "__main__":
    raise SystemExit(modelarts.main())
