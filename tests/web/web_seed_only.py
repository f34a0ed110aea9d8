"""Fetches torrents with libtorrent, from their web seeds alone, and ends when all are whole.

Usage: web_seed_only.py FOLDER TORRENT...
"""

import sys
import time

try:
    import libtorrent as lt
except ImportError:
    sys.exit("install libtorrent with: apt install python3-libtorrent")

folder, torrents = sys.argv[1], sys.argv[2:]
session = lt.session({
    "listen_interfaces": "127.0.0.1:0",
    "enable_lsd": False,
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "alert_mask": lt.alert.category_t.all_categories,
})
handles = []
for torrent in torrents:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    handles.append(session.add_torrent(params))

limit = time.monotonic() + 30
while not all(handle.status().is_seeding for handle in handles):
    if time.monotonic() > limit:
        for alert in session.pop_alerts():
            print(type(alert).__name__, alert.message(), file=sys.stderr)
        sys.exit("not done in time")
    time.sleep(0.05)

# Seeding means hashed; what is written last may still be on its way to the disk.
for handle in handles:
    handle.save_resume_data(lt.save_resume_flags_t.flush_disk_cache)
saved = 0
while saved < len(handles) and time.monotonic() < limit:
    saved += sum(isinstance(alert, lt.save_resume_data_alert) for alert in session.pop_alerts())
    time.sleep(0.05)
