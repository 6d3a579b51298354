"""First of all: a quiet TensorFlow, and a network where nobody else reaches TFF's worker."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

from federated.isolation import isolate_network

isolate_network()
