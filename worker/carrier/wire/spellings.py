"""Names and values of the provider's document that both sides write."""

from __future__ import annotations

from worker.carrier.protocol import FeeType
from worker.portability.records import Status

SINGLE_PATH = "/carrier"
BATCH_PATH = "/carrier_batch"
BALANCE_PATH = "/balance"

APIKEY = "apikey"
MOBILE = "mobile"
BATCH_APIKEY = "ApiKey"
BATCH_NUMBERS = "PhoneNumbers"

APIKEY_LENGTH = 32

RES = {Status.NOT_PORTED: "0", Status.PORTED: "1", Status.VIRTUAL: "3"}
FEE_TYPES = {FeeType.PREPAID: "预付费", FeeType.POSTPAID: "后付费"}
