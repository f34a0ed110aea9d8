"""A client made of libtorrent's defaults: fetches torrents and magnet links, then goes on seeding.

Usage: libtorrent_client.py FOLDER LSD UPLOAD LINK...

LSD is 1 or 0 (local discovery, BEP 14), UPLOAD the most it sends in KiB a second, 0 for no limit. A
LINK is a magnet link or the path of a .torrent. A file named "complete" is made in the working
directory once all of them are; alerts are printed as they come.
"""

import sys
import time

try:
    import libtorrent as lt
except ImportError:
    sys.exit("install libtorrent with: apt install python3-libtorrent")

folder, lsd, upload_kib, links = sys.argv[1], sys.argv[2] == "1", int(sys.argv[3]), sys.argv[4:]

session = lt.session({
    "listen_interfaces": "0.0.0.0:6881,[::]:6881",
    "enable_lsd": lsd,
    "upload_rate_limit": upload_kib * 1024,
    # Nothing outside the test may tell it about us.
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "active_downloads": -1,
    "active_seeds": -1,
    "active_limit": -1,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.tracker_notification
    | lt.alert.category_t.connect_notification
    | lt.alert.category_t.peer_notification,
})

# By itself it holds nobody to its limit whose address is private.
everybody = lt.ip_filter()
everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                   1 << lt.session.global_peer_class_id)
session.set_peer_class_filter(everybody)

handles = []
for link in links:
    if link.startswith("magnet:"):
        params = lt.parse_magnet_uri(link)
    else:
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(link)
    params.save_path = folder
    handles.append(session.add_torrent(params))

complete = False
while True:
    # Not wait_for_alert(): it hands out an alert that the next one to arrive may move in memory.
    time.sleep(0.1)
    for alert in session.pop_alerts():
        print(type(alert).__name__, alert.message(), flush=True)
    if not complete and all(handle.status().is_seeding for handle in handles):
        # Seeding means hashed; the last writes may still be on their way to the disk.
        for handle in handles:
            handle.flush_cache()
        open("complete", "w").close()
        complete = True
