"""A translation that remembers gives what one gives that does not, whatever changes between two moments."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from filters.language import Problems
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.memory import Memory, remembered
from xds_server.gateway_api.objects import KINDS, Object, read_object
from xds_server.gateway_api.translation import translate

_KINDS = {(kind.group, kind.name): kind for kind in KINDS}
_API = "gateway.networking.k8s.io/v1"


def _object(version: str, kind: str, key: tuple[str, str], **fields: Any) -> Object[Any]:
    metadata = {"namespace": key[0], "name": key[1], **fields.pop("metadata", {})}
    value = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
    problems = Problems()
    found = read_object(_KINDS[version.rpartition("/")[0], kind], value, (), problems)
    assert found is not None, list(problems)
    return found


def _listener_set(number: int, namespace: str, hostname: str) -> Object[Any]:
    listener = {
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        **({"hostname": hostname} if hostname else {}),
    }
    spec = {"parentRef": {"name": "web", "namespace": "a"}, "listeners": [listener]}
    return _object(_API, "ListenerSet", (namespace, f"set{number}"), spec=spec)


def _gateway(from_: str, hostname: str) -> Object[Any]:
    namespaces: dict[str, Any] = {"from": from_}
    if from_ == "Selector":
        namespaces["selector"] = {"matchLabels": {"open": "yes"}}
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": namespaces}}
    if hostname:
        listener["hostname"] = hostname
    spec = {
        "gatewayClassName": "x",
        "listeners": [listener],
        "allowedListeners": {"namespaces": {**namespaces, "from": from_}},
    }
    return _object(_API, "Gateway", ("a", "web"), spec=spec)


def _route(number: int, namespace: str, path: str, backend: str, by_set: bool) -> Object[Any]:
    reference = {"name": backend, "namespace": "b", "port": 80}
    rule = {"matches": [{"path": {"value": path}}], "backendRefs": [reference]}
    parent = {"kind": "ListenerSet", "name": "set1"} if by_set else {"name": "web", "namespace": "a"}
    spec = {"parentRefs": [parent], "hostnames": ["x.test"], "rules": [rule]}
    return _object(_API, "HTTPRoute", (namespace, f"r{number}"), spec=spec)


def _service(name: str, port: int, protocol: str) -> Object[Any]:
    return _object(
        "v1", "Service", ("b", name), spec={"ports": [{"name": "p", "port": port, "appProtocol": protocol}]}
    )


def _grant(to: str | None) -> Object[Any]:
    target = {"group": "", "kind": "Service", **({"name": to} if to else {})}
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a"}],
        "to": [target],
    }
    return _object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", ("b", "grant"), spec=spec)


def _policy(target: str) -> Object[Any]:
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": target}],
        "validation": {"hostname": "x.test", "wellKnownCACertificates": "System"},
    }
    return _object(_API, "BackendTLSPolicy", ("b", "policy"), spec=spec)


def _gateway_policy(kind: str, name: str, policy: str, override: bool) -> Object[Any]:
    target = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    spec = {"targetRefs": [target], "override": override, "policies": {"timeouts": {"request": policy}}}
    return _object("xds-gateway.dev/v1alpha1", "GatewayPolicy", ("a", f"on-{name}"), spec=spec)


_NAMES = st.sampled_from(["s1", "s2"])
_OBJECTS = st.one_of(
    st.builds(
        _gateway, st.sampled_from(["All", "Same", "Selector"]), st.sampled_from(["", "x.test", "*.test"])
    ),
    st.builds(
        _route,
        st.integers(0, 2),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["/one", "/two"]),
        _NAMES,
        st.booleans(),
    ),
    st.builds(
        _listener_set,
        st.integers(1, 2),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "x.test", "y.test"]),
    ),
    st.builds(_service, _NAMES, st.sampled_from([80, 81]), st.sampled_from(["http", "kubernetes.io/h2c"])),
    st.builds(_grant, st.one_of(st.none(), _NAMES)),
    st.builds(_policy, _NAMES),
    st.builds(
        lambda target, *more: _gateway_policy(*target, *more),
        st.sampled_from([("Gateway", "web"), ("HTTPRoute", "r0"), ("HTTPRoute", "r1")]),
        st.sampled_from(["1s", "2s", "what"]),
        st.booleans(),
    ),
    st.builds(
        lambda open_: _object("v1", "Namespace", ("", "b"), metadata={"labels": {"open": open_}}),
        st.sampled_from(["yes", "no"]),
    ),
)
_CHANGES = st.lists(st.tuples(_OBJECTS, st.booleans()), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(_CHANGES)
def test_it_gives_what_a_new_translation_gives(changes: list[tuple[Object[Any], bool]]) -> None:
    memory, objects = Memory(), dict[Any, Object[Any]]()
    for one, removed in changes:
        key = (one.kind, one.meta.key)
        if removed:
            objects.pop(key, None)
        else:
            objects[key] = one
        cluster = Cluster.of(objects.values())
        remembering = translate(Cluster(cluster.objects, memory), of_every_class=True)
        new = translate(Cluster(cluster.objects), of_every_class=True)
        assert {key: files.files for key, files in remembering.gateways.items()} == {
            key: files.files for key, files in new.gateways.items()
        }
        assert [_told(one) for one in remembering.route_statuses] == [
            _told(one) for one in new.route_statuses
        ]
        assert [_told(one) for one in remembering.gateway_statuses] == [
            _told(one) for one in new.gateway_statuses
        ]
        assert [_told(one) for one in remembering.policy_statuses] == [
            _told(one) for one in new.policy_statuses
        ]
        assert [_told(one) for one in remembering.object_statuses] == [
            _told(one) for one in new.object_statuses
        ]


def _told(status: Any) -> str:
    return repr(status)


def test_a_result_is_kept_until_its_reads_change() -> None:
    calls = []

    @remembered
    def port(name: str, cluster: Cluster) -> int:
        calls.append(name)
        service = cluster.service(("b", name))
        return 0 if service is None else service.spec.ports[0].port

    memory, name = Memory(), "s1"

    def ask(*objects: Object[Any]) -> int:
        cluster = Cluster(Cluster.of(objects).objects, memory)
        memory.begin(cluster)
        return port(name, cluster)

    service = _service("s1", 80, "http")
    assert [ask(), ask(), ask(service), ask(service, _service("s2", 90, "http"))] == [0, 0, 80, 80]
    assert len(calls) == 2
    assert ask(_service("s1", 81, "http")) == 81
    assert len(calls) == 3
    memory.begin(Cluster.of([]))
    assert ask(service) == 80  # what a whole translation did not use is forgotten
    assert len(calls) == 4
