"""Stands in for the EndpointSlice controller, kube-proxy and a load balancer. nftables forwards to the first ready pod."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.support.kubernetes.standin.kubelet import Kubelet
from tests.support.kubernetes.standin.node import MANAGER, NAME, PODS, SERVICES, SLICES, Node, call, deleting
from tests.support.kubernetes.standin.pod import Pod, named_port
from xds_server.kubernetes.api_errors import NotFound
from xds_server.kubernetes.resources import Key, Object

_LOAD_BALANCERS = "10.245"
_SUFFIX = "-standin"
_PROTOCOLS = ("tcp", "udp")
_TABLE = """
table ip standin
delete table ip standin
table ip standin {
  map services_tcp { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  map services_udp { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  chain from_pods {
    type nat hook prerouting priority -100;
    dnat ip to ip daddr . tcp dport map @services_tcp
    dnat ip to ip daddr . udp dport map @services_udp
  }
  chain from_node {
    type nat hook output priority -100;
    dnat ip to ip daddr . tcp dport map @services_tcp
    dnat ip to ip daddr . udp dport map @services_udp
  }
  chain to_pods { type nat hook postrouting priority 100; ct status dnat masquerade; }
}
"""


@dataclass
class Services:
    """The services of the node."""

    node: Node
    kubelet: Kubelet
    _addresses: dict[str, str] = field(default_factory=dict)
    _forwarded: dict[str, dict[str, str]] | None = None

    def prepare(self) -> None:
        """Make the tables of nftables."""
        call("nft", "-f", "-", text=_TABLE)

    async def reconcile(self) -> None:
        """Write EndpointSlices and addresses, and forward to pods that are ready."""
        forwarded: dict[str, dict[str, str]] = {protocol: {} for protocol in _PROTOCOLS}
        services = self.node.items(SERVICES)
        for key, service in services:
            if deleting(service):
                continue
            pods = self._pods(key.namespace, service["spec"].get("selector") or {})
            if service["spec"].get("selector") and service["spec"].get("type") != "ExternalName":
                await self._write_slice(key, service, pods)
            addresses = await self._service_addresses(key, service)
            ready = next((pod for pod in pods if pod.ready), None)
            for port in service["spec"].get("ports", []) if ready is not None else []:
                protocol = port.get("protocol", "TCP").lower()
                for address in addresses:
                    forwarded[protocol][f"{address} . {port['port']}"] = (
                        f"{ready.address} . {_target(ready, port)}"
                    )
        if forwarded != self._forwarded:
            await asyncio.to_thread(_forward, forwarded)
            self._forwarded = forwarded
        await self._delete_slices({service["metadata"]["uid"] for _, service in services})

    def _pods(self, namespace: str, selector: dict[str, str]) -> list[Pod]:
        found = []
        for key, object_ in self.node.items(PODS):
            labels, uid = object_["metadata"].get("labels") or {}, object_["metadata"]["uid"]
            selected = selector and selector.items() <= labels.items() and key.namespace == namespace
            if selected and not deleting(object_) and uid in self.kubelet.running:
                found.append(self.kubelet.running[uid])
        return sorted(found, key=lambda pod: pod.key)

    async def _service_addresses(self, key: Key, service: Object) -> list[str]:
        spec, uid = service["spec"], service["metadata"]["uid"]
        addresses = [one for one in spec.get("clusterIPs", []) if one != "None" and ":" not in one]
        if spec.get("type") == "LoadBalancer":
            wanted = spec.get("loadBalancerIP") or ""
            known = wanted if wanted.startswith(_LOAD_BALANCERS) else self._addresses.get(uid)
            address = known or self._new_address()
            self._addresses[uid] = address
            status = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}
            await self.node.status(SERVICES, key, uid, status)
            addresses.append(address)
        return addresses + spec.get("externalIPs", [])

    def _new_address(self) -> str:
        number = len(self._addresses) + 2
        return f"{_LOAD_BALANCERS}.{number // 250}.{number % 250 + 1}"

    async def _write_slice(self, key: Key, service: Object, pods: list[Pod]) -> None:
        object_ = _slice(key, service, pods)
        name, slice_key = ("slice", service["metadata"]["uid"]), Key(key.namespace, f"{key.name}{_SUFFIX}")
        missing = slice_key not in self.node.caches[SLICES].items
        if missing or self.node.differs(name, object_):
            await self.node.client.apply(SLICES, object_, manager=MANAGER)
            self.node.wrote(name, object_)

    async def _delete_slices(self, uids: set[str]) -> None:
        for key, object_ in self.node.items(SLICES):
            owners = object_["metadata"].get("ownerReferences") or []
            if key.name.endswith(_SUFFIX) and owners and owners[0]["uid"] not in uids:
                try:
                    await self.node.client.delete(SLICES, key)
                except NotFound:
                    continue


def _target(pod: Pod | None, port: Object) -> int:
    """Return the port of a pod for a port of a service."""
    wanted = port.get("targetPort", port["port"])
    if pod is None:
        return int(wanted if isinstance(wanted, int) else port["port"])
    return named_port(pod.object["spec"], wanted)


def _slice(key: Key, service: Object, pods: list[Pod]) -> Object:
    owner = {"apiVersion": "v1", "kind": "Service", "name": key.name, "controller": True}
    first = pods[0] if pods else None
    ports = [
        {
            "name": port.get("name", ""),
            "port": _target(first, port),
            "protocol": port.get("protocol", "TCP"),
            **({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}),
        }
        for port in service["spec"].get("ports", [])
    ]
    labels = {
        "kubernetes.io/service-name": key.name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    metadata = {
        "name": f"{key.name}{_SUFFIX}",
        "namespace": key.namespace,
        "labels": labels,
        "ownerReferences": [{**owner, "uid": service["metadata"]["uid"]}],
    }
    endpoints = [_endpoint(pod) for pod in pods]
    return {"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}


def _endpoint(pod: Pod) -> Object:
    reference = {"kind": "Pod", "name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid}
    conditions = {"ready": pod.ready, "serving": pod.ready, "terminating": False}
    return {"addresses": [pod.address], "conditions": conditions, "nodeName": NAME, "targetRef": reference}


def _forward(forwarded: dict[str, dict[str, str]]) -> None:
    lines = []
    for protocol, pairs in forwarded.items():
        lines.append(f"flush map ip standin services_{protocol}")
        if pairs:
            elements = ", ".join(f"{here} : {there}" for here, there in pairs.items())
            lines.append(f"add element ip standin services_{protocol} {{ {elements} }}")
    call("nft", "-f", "-", text="\n".join(lines) + "\n")
