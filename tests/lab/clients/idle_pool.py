"""A pool of connections, each of which is wanted again after a pause: HOST PORT CONNECTIONS SECONDS.

A connection that the server has closed meanwhile is noticed when it is wanted, as most pools do, and opened anew.
"""
import http.client
import sys
import threading
import time

host, port, connections, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])


def work(number):
    time.sleep(pause * number / connections)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    while True:
        for _ in range(2):
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            except OSError:
                connection.close()
            except http.client.HTTPException:
                connection.close()
        time.sleep(pause)


for number in range(connections):
    threading.Thread(target=work, args=(number,), daemon=True).start()
threading.Event().wait()
