"""`file:DIR`: a log in one directory, owned by one process at a time.

DIR/SYSTEM                     topology and log id, JSON
DIR/lock                       the owner's lock; its content says who that is and where it listens
DIR/00000/segs/NNNNNNNNNN.seg  the log, named by first index
DIR/00000/snaps/NNNNNNNNNN-SECONDS.snap
DIR/00000/kept/…               events that are still read although their segment has gone
DIR/00000/blobs/aa/<sha256>    of the default tenant; of another one blobs/@tenant/aa/<sha256>
"""
