"""kubeconfig files, and what a pod has instead."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Authority
from xds_server.errors import InvalidKubeconfig
from xds_server.kubernetes.connection import Connection, Material, Tls, TokenReader, in_cluster
from xds_server.kubernetes.kubeconfig import paths_of, read_kubeconfig

GOOD = """\
apiVersion: v1
kind: Config
current-context: test
clusters:
- name: c
  cluster:
    server: https://127.0.0.1:6443/
contexts:
- name: test
  context: {cluster: c, user: u, namespace: shop}
users:
- name: u
  user:
    token: "s3cret"
"""


def _written(folder: Path, text: str = GOOD, name: str = "config") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_current_context_says_server_namespace_and_token(tmp_path: Path) -> None:
    found = read_kubeconfig([_written(tmp_path)])
    assert found == Connection(
        server="https://127.0.0.1:6443", namespace="shop", token=Material(content=b"s3cret")
    )
    assert "s3cret" not in repr(found)


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    text = GOOD.replace('token: "s3cret"', "tokenFile: token").replace(
        "server:", "certificate-authority: ca.crt\n    server:"
    )
    found = read_kubeconfig([_written(tmp_path, text)])
    assert found.token == Material(tmp_path / "token")
    assert found.authorities == Material(tmp_path / "ca.crt")


def test_of_several_files_the_first_that_has_a_name_counts(tmp_path: Path) -> None:
    document = yaml.safe_load(GOOD)
    first = _written(tmp_path, yaml.safe_dump({"clusters": document.pop("clusters")}), "first")
    second = _written(tmp_path, yaml.safe_dump(document), "second")
    assert read_kubeconfig([first, second, tmp_path / "missing"]).server == "https://127.0.0.1:6443"


def test_a_context_can_be_named(tmp_path: Path) -> None:
    document = yaml.safe_load(GOOD)
    document["contexts"].append({"name": "other", "context": {"cluster": "c"}})
    found = read_kubeconfig([_written(tmp_path, yaml.safe_dump(document))], "other")
    assert (found.namespace, found.token) == ("default", None)


def test_kubectl_and_we_read_the_same_files(tmp_path: Path) -> None:
    assert paths_of({}, tmp_path) == [tmp_path / ".kube" / "config"]
    assert paths_of({"KUBECONFIG": "/a::/b"}, tmp_path) == [Path("/a"), Path("/b")]


USE_TOKEN = (
    "make a token with `kubectl create token ACCOUNT`, and write it into a file that `tokenFile` names"
)
MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "exec": (
        {'token: "s3cret"': "exec: {command: aws}"},
        f":14:11: users[0].user.exec: a plugin that makes credentials is not supported; {USE_TOKEN}",
    ),
    "provider": (
        {'token: "s3cret"': "auth-provider: {name: gcp}"},
        f":14:20: users[0].user.auth-provider: an authentication provider is not supported; {USE_TOKEN}",
    ),
    "password": (
        {'token: "s3cret"': "username: me\n    password: s3cret"},
        f":14:15: users[0].user.username: a user name with a password is not supported; {USE_TOKEN}",
    ),
    "no context": (
        {"current-context: test\n": ""},
        ":1:1: current-context: no context is chosen; write current-context: NAME",
    ),
    "unknown context": (
        {"current-context: test": "current-context: prod"},
        ":9:1: contexts: there is no context 'prod'; there are: test; add it, or use another name",
    ),
    "unknown user": (
        {"user: u,": "user: w,"},
        ":12:1: users: there is no user 'w'; there are: u; add it, or use another name",
    ),
    "no server": (
        {"server: https://127.0.0.1:6443/": "namespace: x"},
        ":7:5: clusters[0].cluster: server is missing; write server",
    ),
    "bad server": (
        {"https://127.0.0.1:6443/": "127.0.0.1"},
        ":7:13: clusters[0].cluster.server: expected an address, got '127.0.0.1'; write https://HOST:PORT",
    ),
    "socks": (
        {"server:": "proxy-url: socks5://127.0.0.1\n    server:"},
        ":7:16: clusters[0].cluster.proxy-url: only a proxy for HTTP is supported; write http://HOST:PORT",
    ),
    "a token that is a number": (
        {'"s3cret"': "4711"},
        ":14:12: users[0].user.token: expected a text; write it in quotes",
    ),
    "not base64": (
        {'token: "s3cret"': "client-key-data: s3cret!"},
        (
            ":14:22: users[0].user.client-key-data: this is not base64; encode the file with base64, or name it by "
            "client-key"
        ),
    ),
    "half a pair": (
        {'token: "s3cret"': "client-key: my.key"},
        (
            ":14:5: users[0].user: a client certificate needs its private key; write client-certificate and "
            "client-key"
        ),
    ),
    "not YAML": ({"kind: Config": "kind: ["}, ":4:9: this is not YAML; repair the file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_place_and_remedy_and_shows_no_secret(name: str, tmp_path: Path) -> None:
    replaced, message = MISTAKES[name]
    text = GOOD
    for before, after in replaced.items():
        assert before in text
        text = text.replace(before, after)
    path = _written(tmp_path, text)
    with pytest.raises(InvalidKubeconfig) as error:
        read_kubeconfig([path])
    assert str(error.value) == f"{path}{message}"
    assert "s3cret" not in str(error.value)


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidKubeconfig, match=r"config does not exist; name a kubeconfig, or set KUBECONFIG"
    ):
        read_kubeconfig([tmp_path / "config"])


@pytest.mark.parametrize("text", ["", "- a", "text"])
def test_another_file_is_no_kubeconfig(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidKubeconfig, match=r"config:1:1: this is not a kubeconfig; name a file with"):
        read_kubeconfig([_written(tmp_path, text)])


def test_a_pod_has_its_account(tmp_path: Path) -> None:
    _written(tmp_path, "first", "token")
    _written(tmp_path, "shop", "namespace")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = in_cluster(environment, tmp_path)
    assert (found.server, found.namespace, found.verify) == ("https://[fd00::1]:443", "shop", True)
    assert found.authorities == Material(tmp_path / "ca.crt")


def test_outside_of_a_pod_the_remedy_is_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(InvalidKubeconfig, match=r"KUBERNETES_SERVICE_HOST.* name a kubeconfig"):
        in_cluster({}, tmp_path)


def test_a_token_is_read_again_when_its_file_changes_and_kept_when_the_file_is_missing(
    tmp_path: Path,
) -> None:
    path = _written(tmp_path, "first\n", "token")
    reader = TokenReader(Material(path))
    assert reader.current() == "first"
    path.with_name("new").write_text("second")
    path.with_name("new").rename(path)
    assert reader.current() == "second"
    path.unlink()
    assert reader.current() == "second"


def test_a_token_that_was_never_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidKubeconfig, match="token: No such file or directory; make the file readable"):
        TokenReader(Material(tmp_path / "token")).current()


def _with_certificate(authority: bytes, pair: tuple[bytes, bytes]) -> Connection:
    certificate, key = pair
    return Connection(
        server="https://127.0.0.1",
        authorities=Material(content=authority),
        certificate=Material(content=certificate),
        private_key=Material(content=key),
    )


def test_a_client_certificate_without_its_key_is_an_error() -> None:
    authority = Authority()
    certificate, _ = authority.issue("alice")
    _, key = authority.issue("bob")
    Tls(_with_certificate(authority.pem, authority.issue("alice"))).context()
    with pytest.raises(InvalidKubeconfig, match="and its private key are not PEM, or no pair"):
        Tls(_with_certificate(authority.pem, (certificate, key))).context()


def test_authorities_that_are_not_pem_are_an_error() -> None:
    with pytest.raises(
        InvalidKubeconfig, match=r"the certificate authorities of https://127.0.0.1 are not PEM"
    ):
        Tls(_with_certificate(b"not PEM", Authority().issue("alice"))).context()


def test_the_tls_context_is_made_again_when_a_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(Authority().pem)
    tls = Tls(Connection(server="https://127.0.0.1", authorities=Material(path)))
    first = tls.context()
    assert tls.context() is first
    path.with_name("new").write_bytes(Authority().pem)
    path.with_name("new").rename(path)
    assert tls.context() is not first


def test_what_is_written_in_a_kubeconfig_as_data_counts(tmp_path: Path) -> None:
    document: Any = yaml.safe_load(GOOD)
    authority = Authority().pem
    document["clusters"][0]["cluster"] |= {
        "certificate-authority-data": base64.b64encode(authority).decode(),
        "certificate-authority": "other.crt",
    }
    found = read_kubeconfig([_written(tmp_path, yaml.safe_dump(document))])
    assert found.authorities == Material(content=authority)
