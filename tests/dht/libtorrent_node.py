"""A DHT node made of libtorrent: looks for one info-hash and has the torrent of another.

Usage: python3 -c SCRIPT HOST:PORT,... WANTED HAD FOLDER

Says "found ADDRESS:PORT" for each peer of WANTED, and "nodes N" now and then.
"""

import sys
import time

import libtorrent as lt

entries, wanted, had, folder = sys.argv[1:]

session = lt.session({
    "listen_interfaces": "127.0.0.2:7002",
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_dht": True,
    "dht_bootstrap_nodes": entries,
    # All nodes of the test share an address.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_ignore_dark_internet": False,
    "dht_prefer_verified_node_ids": False,
    "alert_mask": lt.alert.category_t.dht_notification
    | lt.alert.category_t.dht_operation_notification
    | lt.alert.category_t.error_notification,
})

wanted = lt.sha1_hash(bytes.fromhex(wanted))
for address in entries.split(","):
    host, port = address.rsplit(":", 1)
    session.add_dht_node((host, int(port)))

params = lt.parse_magnet_uri("magnet:?xt=urn:btih:" + had)
params.save_path = folder
torrent = session.add_torrent(params)

turn = 0
while True:
    if turn % 10 == 0:
        session.dht_get_peers(wanted)
        torrent.force_dht_announce()
        session.post_dht_stats()
    turn += 1
    time.sleep(0.1)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.dht_get_peers_reply_alert):
            for host, port in alert.peers():
                print(f"found {host}:{port}", flush=True)
        elif isinstance(alert, lt.dht_stats_alert):
            nodes = sum(bucket["num_nodes"] for bucket in alert.routing_table)
            print(f"nodes {nodes}", flush=True)
        else:
            print(type(alert).__name__, alert.message(), flush=True)
