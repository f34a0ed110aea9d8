"""Makes a .torrent with libtorrent's defaults: of both versions (BEP 52), hence with padding.

Usage: make_torrent.py PATH TORRENT
"""

import os
import sys

import libtorrent as lt

path, torrent = sys.argv[1], sys.argv[2]

files = lt.file_storage()
lt.add_files(files, path)
made = lt.create_torrent(files, 64 * 1024)
lt.set_piece_hashes(made, os.path.dirname(path))
with open(torrent, "wb") as out:
    out.write(lt.bencode(made.generate()))
