"""Calls many places in turn, one connection each, and one of them between all others: PORT CALLS_A_SECOND HOT ADDRESS...

HOT is 1 where every other call goes to the first address, else 0.
"""
import socket
import sys
import time

port, pause, hot, addresses = int(sys.argv[1]), 1 / float(sys.argv[2]), sys.argv[3] == "1", sys.argv[4:]


def call(address):
    with socket.create_connection((address, port), timeout=30) as connection:
        connection.sendall(b"hello")
        connection.recv(5)


while True:
    for address in addresses:
        call(address)
        time.sleep(pause)
        if hot:
            call(addresses[0])
            time.sleep(pause)
