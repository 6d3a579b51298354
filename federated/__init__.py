"""Differentially private federated training over simulated devices."""
