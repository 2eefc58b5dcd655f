"""Files in an S3 bucket: AWS, Wasabi, Backblaze B2, SeaweedFS or any other server that speaks it.

Connections, credentials and the event loop are those of `s3fs`, but requests go straight to its client: `s3fs` looks before it reads and
caches listings, while here a small operation is one request. Neither `s3fs` nor botocore retries; one loop here does, so that patience
means the same for every operation.

Importing this takes a second: only what needs a bucket does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import posixpath
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from botocore.session import Session
from fsspec.asyn import get_loop
from prefect_aws import AwsCredentials
from s3fs import S3FileSystem

from blocks.files import AT_ONCE, Found, RemoteFiles
from dubbing.errors import BadSetting, StoreFailed

PATIENCE = 60.0  # seconds that faults may last: a server restarts in less
FIRST_WAIT = 0.2  # seconds before the second attempt; doubled each time
LONGEST_WAIT = 5.0
CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
SLOWEST = 64 * 1024  # bytes per second: a body that moves slower than this is a fault
SINGLE = 16_000_000  # bytes: a file below this is sent in one request
PART = 8 << 20  # bytes: S3 takes no parts below 5 MiB but the last
MOST_PARTS = 10_000  # S3 takes no more
PARTS_AT_ONCE = 4
LARGEST_COPY = 5_000_000_000  # bytes that S3 copies in one request
LISTED = 1000  # names in one answer: S3 gives no more
BLOCK = 1 << 20  # bytes written to disk at a time while downloading
NOTHING: Mapping[str, Any] = MappingProxyType({})

_PASSING_CODES = {
    "BadDigest",  # the body was damaged on the way
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "OperationAborted",
}
_CHANGED_CODES = {"PreconditionFailed", "412", "InvalidRange", "416"}  # another file by that name came while one was fetched
_DENIED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AccountProblem"}

Value = TypeVar("Value")


class _Cut(Exception):
    """An answer ended early, or is not the one that was asked for."""


class S3Files(RemoteFiles):
    """The objects of a bucket whose keys start with a prefix.

    Args:
        address: `s3://bucket` or `s3://bucket/prefix`.
        credentials: an account and a server, as a Prefect block. None: what the environment or `~/.aws` says, as for every S3 client.
        patience: seconds that faults may last before `StoreFailed`.

    Raises:
        BadSetting: not such an address.
    """

    def __init__(self, address: str, credentials: AwsCredentials | None, patience: float = PATIENCE) -> None:
        scheme, _, rest = address.partition("://")
        self.bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not self.bucket or "@" in self.bucket:
            raise BadSetting("an S3 address is s3://bucket/prefix, without an account in it")
        if ".." in prefix.split("/"):
            raise BadSetting(f"{address}: '..' can't be part of a store's address")
        self.prefix = posixpath.normpath(prefix).strip("/") + "/" if prefix.strip("/") else ""
        self.where = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.patience = patience
        self._credentials = credentials
        # Nobody waits longer for one answer than for the whole operation.
        self._read_timeout = min(READ_TIMEOUT, patience)
        self._systems: dict[int, S3FileSystem] = {}  # process -> connections, which a forked process can't share

    def read(self, name: str) -> bytes:
        key = self._key(name)

        async def attempt(client: Any) -> bytes:
            reply = await client.get_object(Bucket=self.bucket, Key=key)
            async with reply["Body"] as body:
                content: bytes = await body.read()
            if len(content) != reply.get("ContentLength", len(content)):
                raise _Cut
            return content

        return self._run(self._insist(attempt, missing=name))

    def write(self, name: str, content: bytes) -> None:
        self._run(self._put(self._key(name), io.BytesIO(content)))

    def size(self, name: str) -> int | None:
        told = self.told(name)
        return int(told["ContentLength"]) if told else None

    def upload(self, path: Path, name: str) -> None:
        self.publish(path, name)

    def publish(self, path: Path, name: str, **told: Any) -> None:
        """`upload`, with what S3 is told of the object beside its content: `ContentType`, `Metadata`."""
        key = self._key(name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            whole = _Stretch(file.fileno(), 0, size)
            self._run(self._put(key, whole, told) if size < SINGLE else self._put_parts(key, whole, told))

    def told(self, name: str) -> dict[str, Any] | None:
        """What S3 knows of an object (`ContentType`, `ContentLength`, `Metadata`, `ETag`); None when there is none of that name.

        Raises:
            StoreFailed
        """
        key = self._key(name)

        async def attempt(client: Any) -> dict[str, Any]:
            reply: dict[str, Any] = await client.head_object(Bucket=self.bucket, Key=key)
            return reply

        try:
            return self._run(self._insist(attempt, missing=name))
        except FileNotFoundError:
            return None

    def copied(self, origin: S3Files, there: str, name: str, size: int, **told: Any) -> bool:
        """Have the server copy an object of another prefix or bucket, without a byte passing here.

        Returns:
            Whether it did: False where it isn't the same server and account, or the object is too large for one request, is not of this
            size, or the server doesn't want to.

        Raises:
            StoreFailed: the server can't be reached.
        """
        if size > LARGEST_COPY or self._account() != origin._account():
            return False
        key, source = self._key(name), {"Bucket": origin.bucket, "Key": origin._key(there)}

        async def attempt() -> None:
            client = await self._client()
            async with asyncio.timeout(self._limit(size)):
                if (await client.head_object(**source))["ContentLength"] != size:
                    raise _Cut
                await client.copy_object(Bucket=self.bucket, Key=key, CopySource=source, MetadataDirective="REPLACE", **told)

        try:
            self._run(attempt())
        except (ClientError, _Cut):
            return False
        except Exception as error:
            _passing(self.where, error)
            return False
        return self.size(name) == size

    def _account(self) -> Any:
        return self._credentials.model_dump() if self._credentials else None

    def presigned(self, name: str, seconds: int) -> str:
        """An address at which anybody may read the object for so long. Nobody is asked whether it is there."""
        key = self._key(name)

        async def signed() -> str:
            client = await self._client()
            address: str = await client.generate_presigned_url("get_object", {"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds)
            return address

        try:
            return self._run(signed())
        except Exception as error:
            _passing(self.where, error)
            raise

    def download(self, name: str, path: Path, progress: Callable[[int], None] | None = None) -> None:
        key = self._key(name)
        patience = _Patience(self.where, self.patience)
        done, told, etag = 0, 0, None
        with path.open("wb") as copy:
            while True:
                try:
                    body, done, total, etag = self._run(self._open(key, done, etag))
                    copy.seek(done)
                    copy.truncate()
                    for block in self._blocks(body, total - done):
                        copy.write(block)
                        done += len(block)
                        if block:
                            patience.renew()
                        if progress and done > told:
                            progress(done - told)
                            told = done
                    return
                except Exception as error:
                    if _is_missing(error):
                        raise FileNotFoundError(name) from None
                    if isinstance(error, ClientError) and error.response["Error"]["Code"] in _CHANGED_CODES:
                        done, etag = 0, None
                    time.sleep(patience.after(error))

    def remove(self, name: str) -> None:
        key = self._key(name)

        async def attempt(client: Any) -> None:
            await client.delete_object(Bucket=self.bucket, Key=key)

        with suppress(FileNotFoundError):
            self._run(self._insist(attempt, missing=name))

    def found(self, prefix: str) -> Iterator[Found]:
        start = self._key(prefix) + "/" if prefix else self.prefix
        page: dict[str, Any] = {}
        while True:
            more = {"ContinuationToken": page["NextContinuationToken"]} if page else {}

            async def attempt(client: Any, more: dict[str, str] = more) -> dict[str, Any]:
                reply: dict[str, Any] = await client.list_objects_v2(Bucket=self.bucket, Prefix=start, MaxKeys=LISTED, **more)
                return reply

            page = self._run(self._insist(attempt))
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):  # some tools keep folders as empty objects
                    yield Found(entry["Key"][len(self.prefix) :], int(entry["Size"]), entry["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return

    # --- requests

    async def _put(self, key: str, body: _Stretch | io.BytesIO, told: Mapping[str, Any] = NOTHING) -> None:
        size = body.seek(0, io.SEEK_END)
        checksum = await asyncio.to_thread(_checksum, body)

        async def attempt(client: Any) -> None:
            body.seek(0)
            # A small body is on its way before the server could be asked whether it wants it.
            await client.put_object(Bucket=self.bucket, Key=key, Body=body if size > BLOCK else body.read(), ContentMD5=checksum, **told)

        await self._insist(attempt, size=size)

    async def _put_parts(self, key: str, whole: _Stretch, told: Mapping[str, Any] = NOTHING) -> None:
        size = len(whole)
        part = max(PART, -(-size // MOST_PARTS))
        target = {"Bucket": self.bucket, "Key": key}

        async def begin(client: Any) -> str:
            return str((await client.create_multipart_upload(**target, **told))["UploadId"])

        upload = {**target, "UploadId": await self._insist(begin)}
        offsets = iter(range(0, size, part))
        tags: dict[int, str] = {}

        async def send_parts() -> None:
            for offset in offsets:  # shared by all who send
                number = offset // part + 1
                body = whole.part(offset, min(part, size - offset))
                checksum = await asyncio.to_thread(_checksum, body)

                async def attempt(client: Any, number: int = number, body: _Stretch = body, checksum: str = checksum) -> str:
                    body.seek(0)
                    reply = await client.upload_part(**upload, PartNumber=number, Body=body, ContentMD5=checksum)
                    return str(reply["ETag"])

                tags[number] = await self._insist(attempt, size=len(body))

        try:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(PARTS_AT_ONCE):
                        group.create_task(send_parts())
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            await self._complete(upload, tags, size)
        except BaseException:
            # Else the parts stay, unseen and paid for. A server that is down keeps them: a lifecycle rule of the bucket is for that.
            with suppress(Exception):
                async with asyncio.timeout(self._read_timeout):
                    await (await self._client()).abort_multipart_upload(**upload)
            raise

    async def _complete(self, upload: dict[str, str], tags: dict[int, str], size: int) -> None:
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        repeated = False

        async def attempt(client: Any) -> None:
            nonlocal repeated
            try:
                await client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except ClientError as error:
                if not (repeated and error.response["Error"]["Code"] == "NoSuchUpload"):
                    raise
                # The first attempt had succeeded and its answer was lost.
                if (await client.head_object(Bucket=upload["Bucket"], Key=upload["Key"]))["ContentLength"] != size:
                    raise
            finally:
                repeated = True

        await self._insist(attempt, size=size)  # some servers copy the parts together before they answer

    async def _open(self, key: str, start: int, etag: str | None) -> tuple[Any, int, int, str | None]:
        """A file's content from `start`: the body, where it begins, the length of the whole file, its tag."""
        request = {"Range": f"bytes={start}-", **({"IfMatch": etag} if etag else {})} if start else {}
        async with asyncio.timeout(self._limit()):
            reply = await (await self._client()).get_object(Bucket=self.bucket, Key=key, **request)
        if reply["ResponseMetadata"]["HTTPStatusCode"] != 206:
            return reply["Body"], 0, int(reply["ContentLength"]), reply.get("ETag")
        span, _, total = reply["ContentRange"].removeprefix("bytes ").partition("/")
        if int(span.partition("-")[0]) != start:
            reply["Body"].close()
            raise _Cut
        return reply["Body"], start, int(total), reply.get("ETag")

    def _blocks(self, body: Any, length: int) -> Iterator[bytearray]:
        """What comes, also of a block that a fault cuts short; then the fault."""
        try:
            while length:
                block = bytearray()
                try:
                    self._run(self._fill(body, block, min(BLOCK, length)))
                except Exception:
                    yield block
                    raise
                yield block
                length -= len(block)
        finally:
            self._run(self._close(body))

    async def _fill(self, body: Any, block: bytearray, length: int) -> None:
        async with asyncio.timeout(self._limit(length)):
            while len(block) < length:
                content = await body.read(length - len(block))
                if not content:
                    raise _Cut
                block += content

    async def _close(self, body: Any) -> None:
        body.close()

    # --- faults

    async def _insist(self, attempt: Callable[[Any], Awaitable[Value]], missing: str = "", size: int = 0) -> Value:
        """The value of an attempt that succeeds.

        Args:
            missing: the name for FileNotFoundError, if a file that isn't there is none of the store's faults.
            size: bytes that are sent.
        """
        patience = _Patience(self.where, self.patience)
        while True:
            try:
                client = await self._client()  # may take seconds on a busy machine, and says nothing of the server
                async with asyncio.timeout(self._limit(size)):
                    return await attempt(client)
            except Exception as error:
                if missing and _is_missing(error):
                    raise FileNotFoundError(missing) from None
                await asyncio.sleep(patience.after(error))

    def _limit(self, size: int = 0) -> float:
        """Seconds that an attempt may take, so that a server which trickles holds nobody up for ever."""
        return min(CONNECT_TIMEOUT, self.patience) + self._read_timeout + size / SLOWEST

    def _run(self, operation: Coroutine[Any, Any, Value]) -> Value:
        """In the thread where all connections live, while this one waits and can be interrupted."""
        future = asyncio.run_coroutine_threadsafe(operation, get_loop())
        try:
            while not future.done():
                wait([future], timeout=1.0)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # --- connections

    async def _client(self) -> Any:
        process = os.getpid()
        if process not in self._systems:
            asyncio.get_running_loop().set_exception_handler(_log_unless_unclosed)
            self._systems.setdefault(process, await asyncio.to_thread(self._connections))  # assuming a role takes a request
        return await self._systems[process].set_session()

    def _connections(self) -> S3FileSystem:
        config: dict[str, Any] = {
            "connect_timeout": min(CONNECT_TIMEOUT, self.patience),
            "read_timeout": self._read_timeout,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 2 * AT_ONCE,
            "request_checksum_calculation": "when_required",  # newer checksums than MD5 are unknown to many servers
            "response_checksum_validation": "when_required",
        }
        client: dict[str, Any] = {"region_name": os.environ.get("AWS_REGION")}  # botocore itself knows AWS_DEFAULT_REGION only
        account: dict[str, Any] = {}
        block = self._credentials
        profile = block.profile_name if block else None
        if block:
            parameters = block.aws_client_parameters
            settings = dict(parameters.config or {})
            account["anon"] = settings.pop("signature_version", None) == "unsigned"
            config |= {**settings, "retries": config["retries"]}
            client["region_name"] = block.region_name or client["region_name"]
            client["api_version"] = parameters.api_version
            client["use_ssl"] = parameters.use_ssl
            client["verify"] = str(parameters.verify_cert_path) if parameters.verify_cert_path else parameters.verify
            client["endpoint_url"] = parameters.endpoint_url
            if block.assume_role_arn:
                keys = block.get_boto3_session().get_credentials().get_frozen_credentials()
                account |= {"key": keys.access_key, "secret": keys.secret_key, "token": keys.token}
                profile = None
            elif block.aws_access_key_id:
                secret = block.aws_secret_access_key
                account |= {"key": block.aws_access_key_id, "secret": secret.get_secret_value() if secret else None}
                account["token"] = block.aws_session_token
            if profile:
                account["profile"] = profile
        if not account.get("anon"):
            config.setdefault("signature_version", "s3v4")  # else presigned addresses are of the kind before, which many servers refuse
        if client.get("endpoint_url") or _configured_endpoint(profile):
            # Not every server has a host name for every bucket.
            config["s3"] = {"addressing_style": "path", **config.get("s3", {})}
        client = {name: value for name, value in client.items() if value is not None}
        return S3FileSystem(**account, client_kwargs=client, config_kwargs=config, skip_instance_cache=True)

    # --- names

    def _key(self, name: str) -> str:
        """Raises ValueError for a name that leads out of the store."""
        key = posixpath.normpath(name)
        if name.startswith("/") or ".." in name.split("/") or key == "." or "\0" in name:
            raise ValueError(f"{name!r}: outside the store")
        return self.prefix + key


class _Patience:
    """Waits between attempts, and the end of them."""

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Something has been done: the next failure is a first one."""
        self._attempts = 0
        self._until = 0.0

    def after(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            StoreFailed: no more attempts.
        """
        reason = _passing(self._where, error)
        now = time.monotonic()
        if self._attempts == 0:
            self._until = now + self._seconds
        if now >= self._until:
            raise StoreFailed(f"store {self._where}: can't be reached ({reason})") from error
        delay = min(FIRST_WAIT * 2**self._attempts, LONGEST_WAIT) * random.uniform(0.5, 1)
        self._attempts += 1
        return min(delay, self._until - now)


def _passing(where: str, error: Exception) -> str:
    """What the fault is, in a few words without secrets or addresses.

    Raises:
        StoreFailed: it won't pass.
        Exception: the error itself, if it is none of the store's.
    """
    match error:
        case ClientError():
            return _passing_answer(where, error)
        case NoCredentialsError() | PartialCredentialsError():
            raise StoreFailed(f"store {where}: no credentials: give a block, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        case ParamValidationError() if "bucket" in str(error).lower():
            raise StoreFailed(f"store {where}: not a valid name of a bucket") from error
        case SSLError() if isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorCertificateError | ssl.CertificateError):
            raise StoreFailed(f"store {where}: the server's certificate can't be verified") from error
        case ValueError() if "nvalid endpoint" in str(error):
            raise StoreFailed(f"store {where}: the endpoint is not a valid URL") from error
        case TimeoutError() | ReadTimeoutError() | ConnectTimeoutError():
            return "no answer in time"
        case EndpointConnectionError():
            return "no connection"
        case SSLError():
            return "no secure connection"
        case ConnectionClosedError():
            return "the connection was cut"
        case CredentialRetrievalError():
            return "no credentials could be fetched"
        case HTTPClientError() | aiohttp.ClientError() | ConnectionError() | _Cut():
            return "the connection was cut"
        case RecursionError():  # botocore asks again and again which region that is
            raise StoreFailed(f"store {where}: the bucket is in another region") from error
        case ResponseParserError():
            return "an answer that isn't S3's"
        case BotoCoreError():
            raise StoreFailed(f"store {where}: {type(error).__name__}: check the settings of the account") from error
    raise error


def _passing_answer(where: str, error: ClientError) -> str:
    """The same for an answer of the server."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _PASSING_CODES or status in (408, 412, 416, 429) or (status >= 500 and status != 501):
        return f"it answers {status} {code}" if code != str(status) else f"it answers {status}"
    if code == "NoSuchBucket":
        raise StoreFailed(f"store {where}: there is no bucket of that name") from error
    if code == "RequestTimeTooSkewed":
        raise StoreFailed(f"store {where}: the clock of this machine is wrong") from error
    if code in _DENIED_CODES or status in (401, 403):
        raise StoreFailed(f"store {where}: access denied: check the credentials") from error
    if code == "InvalidBucketName":
        raise StoreFailed(f"store {where}: not a valid name of a bucket") from error
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "307"):
        raise StoreFailed(f"store {where}: the bucket is in another region") from error
    raise StoreFailed(f"store {where}: the server refuses ({status} {code})") from error


def _is_missing(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in ("NoSuchKey", "NotFound", "404")


def _log_unless_unclosed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As usual, but without a word on connections that a fault has ended: they are closed when they are forgotten."""
    if not str(context.get("message")).startswith("Unclosed"):
        loop.default_exception_handler(context)


def _configured_endpoint(profile: str | None) -> str | None:
    """Where the environment or `~/.aws/config` says that S3 is."""
    session = Session(profile=profile)
    with suppress(BotoCoreError):  # a profile that isn't there: the connection says so
        provider = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3")
        endpoint: str | None = provider.provide()
        return endpoint
    return None


def _checksum(body: io.RawIOBase | io.BytesIO) -> str:
    body.seek(0)
    digest = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


class _Stretch(io.RawIOBase):
    """A stretch of an open file as the body of a request: read from disk as it is sent."""

    def __init__(self, file: int, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._at = 0

    def part(self, offset: int, length: int) -> _Stretch:
        return _Stretch(self._file, self._start + offset, length)

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        left = max(0, self._length - self._at)
        count = os.preadv(self._file, [memoryview(buffer)[:left]], self._start + self._at) if left else 0
        if left and not count:
            raise OSError("a file became shorter while it was copied")
        self._at += count
        return count
