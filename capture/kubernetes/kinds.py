"""The kinds a snapshot takes. Secrets and ConfigMaps are not among them and are never asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """kind; path of its LIST below the API's root; optional: absent from many clusters, so absence is no note."""

    kind: str
    path: str
    optional: bool = False

    @property
    def plural(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return self.path.rpartition("/")[0].removeprefix("/apis/").removeprefix("/api/")

    def in_namespace(self, namespace: str) -> str:
        """The path of the LIST of one namespace."""
        root, _, plural = self.path.rpartition("/")
        return f"{root}/namespaces/{namespace}/{plural}"


# In the order they are asked for: what explains traffic first, so that a snapshot cut short has the best part.
KINDS = (
    Kind("Node", "/api/v1/nodes"),
    Kind("Pod", "/api/v1/pods"),
    Kind("Service", "/api/v1/services"),
    Kind("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
    Kind("ReplicaSet", "/apis/apps/v1/replicasets"),
    Kind("Deployment", "/apis/apps/v1/deployments"),
    Kind("StatefulSet", "/apis/apps/v1/statefulsets"),
    Kind("DaemonSet", "/apis/apps/v1/daemonsets"),
    Kind("Job", "/apis/batch/v1/jobs"),
    Kind("CronJob", "/apis/batch/v1/cronjobs"),
    Kind("ReplicationController", "/api/v1/replicationcontrollers"),
    Kind("Event", "/api/v1/events"),
    Kind("Namespace", "/api/v1/namespaces"),
    Kind("Endpoints", "/api/v1/endpoints"),
    Kind("Ingress", "/apis/networking.k8s.io/v1/ingresses"),
    Kind("NetworkPolicy", "/apis/networking.k8s.io/v1/networkpolicies"),
    Kind("HorizontalPodAutoscaler", "/apis/autoscaling/v2/horizontalpodautoscalers"),
    Kind("PersistentVolumeClaim", "/api/v1/persistentvolumeclaims"),
    Kind("Gateway", "/apis/gateway.networking.k8s.io/v1/gateways", optional=True),
    Kind("HTTPRoute", "/apis/gateway.networking.k8s.io/v1/httproutes", optional=True),
    Kind("GRPCRoute", "/apis/gateway.networking.k8s.io/v1/grpcroutes", optional=True),
    Kind("TCPRoute", "/apis/gateway.networking.k8s.io/v1alpha2/tcproutes", optional=True),
)
CLUSTER_SCOPED = ("Node", "Namespace")

KIND_NAMES = frozenset(k.kind for k in KINDS)
WORKLOAD_KINDS = (
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ReplicationController",
)
