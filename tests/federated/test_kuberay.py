"""The manifest for Kubernetes: one cluster of this Ray, with a token, and nothing that trains beside the run."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_manifest_is_a_cluster_of_the_locked_ray_with_a_token() -> None:
    text = (ROOT / "federated" / "engines" / "kuberay.yaml").read_text("utf-8")
    cluster, claim = yaml.safe_load_all(text)
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert f"\nray=={spec['rayVersion']} " in (ROOT / "locks" / "fleet.lock").read_text("utf-8")
    assert spec["authOptions"] == {"mode": "token"}
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    pods = [group["template"]["spec"] for group in (head, workers)]
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    volume = pods[0]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert (claim["kind"], claim["metadata"]["name"]) == ("PersistentVolumeClaim", volume)
