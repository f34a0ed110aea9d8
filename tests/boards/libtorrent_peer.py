"""A client made of libtorrent's defaults that is told of one peer; it ends when all is here.

Usage: libtorrent_peer.py FOLDER TORRENT ADDRESS:PORT
"""

import sys
import time

try:
    import libtorrent as lt
except ImportError:
    sys.exit("install libtorrent with: apt install python3-libtorrent")

folder, torrent, peer = sys.argv[1:]
address, port = peer.rsplit(":", 1)

session = lt.session({
    "listen_interfaces": "127.0.0.1:0",
    # Nothing outside the test may tell it about us, and nothing of it may leave this machine.
    "outgoing_interfaces": "127.0.0.1",
    "enable_lsd": False,
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.connect_notification
    | lt.alert.category_t.peer_notification
    | lt.alert.category_t.storage_notification,
})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = folder
handle = session.add_torrent(params)
handle.connect_peer((address, int(port)))

while not handle.status().is_seeding:
    # Not wait_for_alert(): it hands out an alert that the next one to arrive may move in memory.
    time.sleep(0.05)
    for alert in session.pop_alerts():
        print(type(alert).__name__, alert.message(), flush=True)
# Seeding means hashed; the last writes may still be on their way to the disk.
handle.flush_cache()
while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
    time.sleep(0.05)
