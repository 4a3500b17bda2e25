"""Verifies signed requests as the services do: with botocore, with http-message-signatures, and by hand.

Each line of standard input is a request: kind, method, target, authority, headers (a list of pairs), body (base64), and
what the kind needs. Each line of standard output is the verdict: `ok`, or what is wrong.
"""

import base64
import datetime
import hashlib
import hmac
import json
import re
import sys
from types import SimpleNamespace

import botocore.auth
import requests
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms


def values(said, name):
    return [value for own, value in said["headers"] if own == name]


def aws(said, body):
    """Signs the same request at the same time, and compares the fields."""
    (authorization,) = values(said, "authorization")
    signed = re.search(r"SignedHeaders=([^,]*)", authorization).group(1).split(";")
    (date,) = values(said, "x-amz-date")
    now = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ")
    age = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - now
    if abs(age) > datetime.timedelta(minutes=5):
        return f"made at {date}"
    botocore.auth.get_current_datetime = lambda *_: now
    request = AWSRequest(said["method"], f"https://{said['authority']}{said['target']}", data=body)
    for name, value in said["headers"]:
        if name in signed and name not in ("host", "x-amz-date", "x-amz-security-token"):
            request.headers[name] = value
    keys = Credentials("AKIDEXAMPLE", "canary-2f6b-secret-key", said.get("token"))
    signer = botocore.auth.SigV4Auth
    if said["service"] == "s3":
        signer = botocore.auth.S3SigV4Auth
        signs_payload = "UNSIGNED-PAYLOAD" not in values(said, "x-amz-content-sha256")
        request.context["client_config"] = SimpleNamespace(s3={"payload_signing_enabled": signs_payload})
        if "STREAMING-UNSIGNED-PAYLOAD-TRAILER" in values(said, "x-amz-content-sha256"):
            request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    signer(keys, said["service"], "us-east-1").add_auth(request)
    for name in ["authorization", "x-amz-content-sha256", "x-amz-security-token"]:
        theirs, ours = request.headers.get_all(name, []), values(said, name)
        if theirs != ours:
            return f"{name}: botocore has {theirs}, and this is {ours}"
    return "ok"


class Keys(HTTPSignatureKeyResolver):
    def __init__(self, key, is_public):
        self.key = load_pem_public_key(key.encode()) if is_public else key.encode()

    def resolve_public_key(self, key_id):
        return self.key if key_id == "app" else None


def message(said, body):
    names = {
        "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
        "ecdsa-p384-sha384": getattr(algorithms, "ECDSA_P384_SHA384", None),
        "ed25519": algorithms.ED25519,
        "hmac-sha256": algorithms.HMAC_SHA256,
        "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
        "rsa-v1_5-sha256": algorithms.RSA_V1_5_SHA256,
    }
    request = requests.Request(said["method"], f"https://{said['authority']}{said['target']}").prepare()
    request.url = f"https://{said['authority']}{said['target']}"
    request.body = body
    request.headers.clear()
    for name, _ in said["headers"]:
        request.headers[name] = ", ".join(values(said, name))
    algorithm = names[said["algorithm"]]
    keys = Keys(said["key"], said["algorithm"] != "hmac-sha256")
    verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=keys)
    (result,) = verifier.verify(request, max_age=datetime.timedelta(minutes=5))
    covered = [name.split(";")[0].strip('"') for name in result.covered_components]
    for digest in values(said, "content-digest"):
        wanted = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if "content-digest" not in covered or digest != f"sha-256=:{wanted}:":
            return f"content-digest: {digest}"
    missing = [name for name in said["covered"] if name not in covered]
    return f"not covered: {missing}" if missing else "ok"


def cavage(said, body):
    """draft-cavage-http-signatures, section 2.3, of whatever fields the signature names."""
    (authorization,) = values(said, "authorization")
    parameters = dict(re.findall(r'(\w+)="([^"]*)"', authorization.removeprefix("Signature ")))
    lines = []
    for name in parameters["headers"].split(" "):
        if name == "(request-target)":
            value = f"{said['method'].lower()} {said['target']}"
        elif name == "host":
            value = said["authority"]
        else:
            value = ", ".join(values(said, name))
        lines.append(f"{name}: {value}")
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if values(said, "digest") != [f"SHA-256={digest}"]:
        return "digest"
    code = hmac.new(said["key"].encode(), "\n".join(lines).encode(), "sha256").digest()
    return "ok" if base64.b64encode(code).decode() == parameters["signature"] else "signature"


for line in sys.stdin:
    said = json.loads(line)
    kind = {"aws": aws, "message": message, "cavage": cavage}[said["kind"]]
    try:
        verdict = kind(said, base64.b64decode(said["body"]))
    except Exception as error:  # whatever it is, it is no approval
        verdict = f"{type(error).__name__}: {error}"
    print(verdict.replace("\n", " "), flush=True)
