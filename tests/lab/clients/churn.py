"""A Python program that asks a server for many things at a time, round after round.

churn.py URL REQUESTS-A-ROUND MILLISECONDS-BETWEEN-ROUNDS; the advice, where there is one, is in $SNIPPET."""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import requests

url, batch, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) / 1000
told = {"done": 0, "failed": 0, "errors": {}}

get = requests.get  # a new session, thus a new connection, for each call
if "SNIPPET" in os.environ:
    names = {"requests": requests}
    exec(os.environ["SNIPPET"], names)  # pasted as given
    get = names["session"].get


def one(_):
    try:
        get(url).content
        return None
    except requests.exceptions.ConnectionError as error:
        return "EADDRNOTAVAIL" if "[Errno 99]" in str(error) else repr(error)


with ThreadPoolExecutor(batch) as pool:
    while True:
        for error in pool.map(one, range(batch)):
            if error is None:
                told["done"] += 1
            else:
                told["failed"] += 1
                told["errors"][error] = told["errors"].get(error, 0) + 1
        print(json.dumps(told), flush=True)
        time.sleep(pause)
