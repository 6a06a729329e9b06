# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry's storage in an S3 bucket, through boto3 as distributions package it (1.26 and later)."""

from __future__ import annotations

import email.utils
import errno
import time
from typing import Any, Callable, Collection, Iterable, Iterator, List, Mapping, Optional, Tuple

from .. import _s3
from . import layout
from .driver import Driver, Entry, Multipart, StoreError, Unreadable

_MISSING = ("NoSuchKey", "404", "NotFound")
_BATCH = 1000  # keys per DeleteObjects and per page of a listing

_REASONS = {
    "InvalidAccessKeyId": "the store does not know the key: check accesskey",
    "SignatureDoesNotMatch": "the store refuses the signature: check secretkey",
    "AccessDenied": "the key may not do this: it needs to list, read, write and delete in the bucket",
    "403": "the key may not do this, or its secret is wrong: check accesskey and secretkey",
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket",
}


class S3(Driver):
    """A bucket, or the part of one below ``rootdirectory``."""

    def __init__(self, settings: Mapping[str, Any], workers: int = 16, timeout: float = 30.0) -> None:
        super().__init__(workers)
        try:
            import boto3
            import botocore.config
            import botocore.exceptions
        except ImportError:
            raise StoreError("S3 needs boto3 for the Python that runs this; install python3-boto3") from None
        self.bucket = str(settings.get("bucket") or "")
        if not self.bucket:
            raise StoreError("storage.s3.bucket: missing; write for example bucket: registry")
        root = str(settings.get("rootdirectory") or "").strip("/")
        self._root = root + "/" if root else ""
        self.label = f"s3://{self.bucket}/{self._root}".rstrip("/")
        try:
            endpoint = _s3.find_endpoint(settings)
        except ValueError as error:
            raise StoreError(f"storage.s3.regionendpoint: {error}") from None
        own = bool(settings.get("regionendpoint"))
        path_style = own and settings.get("forcepathstyle") is not False
        url = None
        if own:
            header = endpoint.header if path_style else endpoint.header[len(self.bucket) + 1 :]
            url = f"{'https' if endpoint.secure else 'http'}://{header}"
        options = {
            "signature_version": "s3v4",
            # Each of the workers may look at some links at the same time.
            "max_pool_connections": 4 * self.workers,
            "connect_timeout": min(timeout, 10.0),
            "read_timeout": timeout,
            "retries": {"max_attempts": 3, "mode": "standard"},
            "s3": {"addressing_style": "path" if path_style else "auto"},
        }
        try:
            # Newer releases add checksums of their own to each request, which other stores than AWS refuse.
            config = botocore.config.Config(
                request_checksum_calculation="when_required", response_checksum_validation="when_required", **options
            )
        except TypeError:
            config = botocore.config.Config(**options)
        session = boto3.session.Session()
        self._client = session.client(
            "s3",
            region_name=str(settings.get("region") or "us-east-1"),
            endpoint_url=url,
            aws_access_key_id=settings.get("accesskey") or None,
            aws_secret_access_key=settings.get("secretkey") or None,
            aws_session_token=settings.get("sessiontoken") or None,
            verify=False if settings.get("skipverify") is True else None,
            config=config,
        )
        self._extra: dict = {}
        if settings.get("encrypt") is True:
            self._extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings["keyid"]} if settings.get("keyid") else {
                "ServerSideEncryption": "AES256"
            }  # fmt: skip
        self._failure = botocore.exceptions.ClientError
        self._failures = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
        self._skew = 0.0

    # ------------------------------------------------------------------------------------------------------- helpers

    def _say(self, error: Exception) -> str:
        response = getattr(error, "response", None) or {}
        code = str(response.get("Error", {}).get("Code", ""))
        return _REASONS.get(code) or code or str(error)

    def _fail(self, error: Exception, path: str) -> OSError:
        response = getattr(error, "response", None) or {}
        if str(response.get("Error", {}).get("Code", "")) in _MISSING:
            return FileNotFoundError(errno.ENOENT, "no such object", path)
        return OSError(errno.EIO, self._say(error), path)

    def _note_time(self, answer: Mapping[str, Any]) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self._skew = email.utils.parsedate_to_datetime(date).timestamp() - time.time()

    def _pages(self, **query: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            page = self._client.list_objects_v2(Bucket=self.bucket, **query)
            yield page
            if not page.get("IsTruncated"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def _below(self, prefix: str) -> Tuple[List[str], List[str]]:
        """Return the folders and the files right below a prefix, as paths."""
        folders, files = [], []
        try:
            for page in self._pages(Prefix=self._root + prefix, Delimiter="/"):
                folders += [item["Prefix"][len(self._root) :].rstrip("/") for item in page.get("CommonPrefixes", ())]
                files += [item["Key"][len(self._root) :] for item in page.get("Contents", ())]
        except self._failures as error:
            raise self._fail(error, prefix) from None
        return folders, files

    # --------------------------------------------------------------------------------------------------------- verbs

    def check(self) -> None:
        try:
            answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self._root}{layout.REGISTRY}/", MaxKeys=1)
        except self._failures as error:
            raise StoreError(f"{self.label} cannot be listed: {self._say(error)}") from None
        self._note_time(answer)
        if not answer.get("KeyCount", len(answer.get("Contents", ()))):
            raise StoreError(
                f"{self.label} is no registry's storage: nothing in it begins with {layout.REGISTRY}/; check bucket and rootdirectory"
            )

    def now(self) -> float:
        return time.time() + self._skew

    def partitions(self, prefix: str) -> List[str]:
        """Parts of about equal size: blobs by their first digit, repositories by the second level of their names."""
        folders, files = self._below(prefix + "/")
        parts = list(files)
        for folder, (inner, loose) in zip(folders, self.each(self._below, [folder + "/" for folder in folders])):
            parts += loose
            if prefix == layout.BLOBS:
                parts += sorted({f"{folder}/{name[len(folder) + 1 :][:1]}" for name in inner})
            else:
                parts += [name + "/" for name in inner]
        return parts

    def names(self, folder: str) -> List[str]:
        try:
            return [path.rpartition("/")[2] for path in self._below(folder + "/")[0]]
        except OSError as error:
            self.unreadable.append(Unreadable(folder, str(error.strerror)))
            return []

    def walk(self, prefix: str, skip: Collection[str] = ()) -> Iterator[Entry]:
        skipped = tuple(f"/{name}/" for name in skip)
        cut = len(self._root)
        try:
            for page in self._pages(Prefix=self._root + prefix):
                for item in page.get("Contents", ()):
                    path = item["Key"][cut:]
                    if path.endswith("/") or (skipped and any(name in path for name in skipped)):
                        continue
                    yield Entry(path, item["Size"], item["LastModified"].timestamp(), item["ETag"].strip('"'))
        except self._failures as error:
            self.unreadable.append(Unreadable(prefix, self._say(error)))

    def stat(self, path: str) -> Optional[Entry]:
        try:
            item = self._client.head_object(Bucket=self.bucket, Key=self._root + path)
        except self._failures as error:
            problem = self._fail(error, path)
            if isinstance(problem, FileNotFoundError):
                return None
            raise problem from None
        return Entry(path, item["ContentLength"], item["LastModified"].timestamp(), item["ETag"].strip('"'))

    def read(self, path: str) -> bytes:
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._root + path)
            return answer["Body"].read()
        except self._failures as error:
            raise self._fail(error, path) from None

    def write(self, path: str, content: bytes) -> None:
        try:
            answer = self._client.put_object(Bucket=self.bucket, Key=self._root + path, Body=content, **self._extra)
        except self._failures as error:
            raise self._fail(error, path) from None
        self._note_time(answer)

    def remove(self, paths: Iterable[str]) -> List[Tuple[str, str]]:
        names = list(paths)
        stayed: List[Tuple[str, str]] = []
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        for found in self.each(self._remove_batch, batches, workers=min(4, self.workers)):
            stayed += found
        return stayed

    def _remove_batch(self, paths: List[str]) -> List[Tuple[str, str]]:
        keys = [{"Key": self._root + path} for path in paths]
        try:
            answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
        except self._failures as error:
            reason = self._say(error)
            return [(path, reason) for path in paths]
        return [
            (item["Key"][len(self._root) :], str(item.get("Code") or item.get("Message")))
            for item in answer.get("Errors", ())
            if str(item.get("Code")) not in _MISSING
        ]

    def remove_untouched(self, paths: Iterable[str], touched: Callable[[Entry], bool]) -> Tuple[List[str], List[Tuple[str, str]]]:
        # One by one, not in batches: what is written between a look and its own removal is lost, so nothing else happens between them.
        def remove(path: str) -> Tuple[str, bool, str]:
            try:
                entry = self.stat(path)
                if entry is not None and touched(entry):
                    return path, True, ""
                if entry is not None:
                    self._client.delete_object(Bucket=self.bucket, Key=self._root + path)
            except self._failures as error:
                return path, False, self._say(error)
            except OSError as error:
                return path, False, str(error.strerror)
            return path, False, ""

        done = list(self.each(remove, paths))
        return [path for path, kept, _reason in done if kept], [(path, reason) for path, _kept, reason in done if reason]

    def move(self, source: str, target: str, unless: Optional[Callable[[], bool]] = None) -> bool:
        """Copy within the store, then delete. Large objects are copied in parts by boto3."""
        origin = {"Bucket": self.bucket, "Key": self._root + source}
        try:
            # The plain call for what fits into one; the managed transfer brings threads of its own.
            if self._client.head_object(**origin)["ContentLength"] < 1 << 30:
                self._client.copy_object(Bucket=self.bucket, Key=self._root + target, CopySource=origin, **self._extra)
            else:
                self._client.copy(origin, self.bucket, self._root + target, ExtraArgs=self._extra or None)
            if unless is not None and unless():
                self._client.delete_object(Bucket=self.bucket, Key=self._root + target)
                return False
            self._client.delete_object(**origin)
        except self._failures as error:
            raise self._fail(error, source) from None
        return True

    def multiparts(self) -> List[Multipart]:
        found: List[Multipart] = []
        query: dict = {"Bucket": self.bucket, "Prefix": f"{self._root}{layout.REGISTRY}/"}
        while True:
            try:
                page = self._client.list_multipart_uploads(**query)
            except self._failures:
                return found  # not every store tells
            for item in page.get("Uploads", ()):
                found.append(Multipart(item["Key"][len(self._root) :], item["UploadId"], item["Initiated"].timestamp()))
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return found
            query["KeyMarker"], query["UploadIdMarker"] = page["NextKeyMarker"], page.get("NextUploadIdMarker", "")

    def abort(self, multipart: Multipart) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=self._root + multipart.path, UploadId=multipart.upload_id)
        except self._failures as error:
            problem = self._fail(error, multipart.path)
            if "NoSuchUpload" not in str(problem) and not isinstance(problem, FileNotFoundError):
                raise problem from None

    def prove_writable(self) -> None:
        name = f"{layout.OWN}/probe"
        try:
            self.write(name, b"")
        except OSError as error:
            raise StoreError(f"{self.label} cannot be written: {error.strerror}") from None
        self.remove([name])
