/* The least a BitTorrent v1 seeder can do: one thread, one torrent, every peer unchoked, no limits.
 * `bench` holds the real programs against it, with the same load on both.
 *
 *   reference PORT INFOHASH_HEX FILE PIECE_BYTES sendfile|batch BLOCKS LOWAT [MSS [LEECHER_PORT]]
 *
 * sendfile: for each block one send of its header with MSG_MORE, then sendfile.
 * batch:    up to BLOCKS queued blocks are read into one buffer shared by all connections (one
 *           preadv for those that follow each other), then one send. What did not go is read again
 *           later, so a slow peer holds no buffer; after a short send the next batch is as large as
 *           what went, then twice that, up to BLOCKS.
 * LOWAT:    TCP_NOTSENT_LOWAT in bytes, which keeps what the kernel holds for a stalled peer small;
 *           0: not set.
 * MSS:      the largest segment of its connections; 0: loopback's own.
 * LEECHER_PORT: goes to this port of 127.0.0.1 by itself, and again a second after that
 *           connection has ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { QUEUE = 512, HEAD = 13, BATCH_MAX = 64, BLOCK = 16384, DIAL_AGAIN_MS = 1000 };

struct request { uint32_t piece, begin, length; };

struct connection {
    int fd, dialled, greeted, blocked, in_length;
    int held;              /* the queue has no room for the requests in `in` */
    uint32_t first, last;  /* the ring of requests; both only grow */
    uint32_t sent;         /* how much of the first request's header and block has gone */
    int batch;             /* how many blocks to try at once */
    char in[4096];
    struct request queue[QUEUE];
};

static char scratch[BATCH_MAX * (HEAD + BLOCK)];
static int file, lowat, blocks_max, with_sendfile, mss, leecher_port, leecher_is_here;
static uint32_t piece_bytes, have_length;
static char hello[68], have[1 << 16];

static void put32(char *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }
static uint32_t get32(const char *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }

static void put_head(char *p, struct request r) {
    put32(p, 9 + r.length);
    p[4] = 7;
    put32(p + 5, r.piece);
    put32(p + 9, r.begin);
}

static off_t place(struct request r) { return (off_t)r.piece * piece_bytes + r.begin; }

/* What of the first request was not sent yet, by sendfile. 1: gone, 0: blocked, -1: error. */
static int send_one(struct connection *c) {
    struct request r = c->queue[c->first % QUEUE];
    char head[HEAD];
    put_head(head, r);
    while (c->sent < HEAD + r.length) {
        ssize_t n;
        if (c->sent < HEAD) {
            n = send(c->fd, head + c->sent, HEAD - c->sent, MSG_NOSIGNAL | MSG_MORE);
        } else {
            off_t at = place(r) + c->sent - HEAD;
            n = sendfile(c->fd, file, &at, HEAD + r.length - c->sent);
        }
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) return -1;
        c->sent += n;
    }
    c->sent = 0;
    c->first++;
    return 1;
}

/* Puts up to c->batch requests into the scratch with their headers; returns the length, or -1. */
static int fill(struct connection *c) {
    struct iovec parts[BATCH_MAX];
    int length = 0, count = 0;
    off_t start = 0, next = 0;
    for (int i = 0; i <= c->batch; i++) {
        int more = i < c->batch && c->first + i != c->last;
        struct request r = c->queue[(c->first + i) % QUEUE];
        if (count && (!more || place(r) != next)) {
            if (preadv(file, parts, count, start) != next - start) return -1;
            count = 0;
        }
        if (!more) break;
        put_head(scratch + length, r);
        uint32_t gone = i == 0 && c->sent > HEAD ? c->sent - HEAD : 0;
        if (!count) start = place(r) + gone;
        parts[count++] = (struct iovec){scratch + length + HEAD + gone, r.length - gone};
        next = place(r) + r.length;
        length += HEAD + r.length;
    }
    return length;
}

/* A batch of requests with one send. 1: gone, 0: blocked, -1: error. */
static int send_batch(struct connection *c) {
    int length = fill(c);
    if (length < 0) return -1;
    ssize_t n = send(c->fd, scratch + c->sent, length - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
        c->batch = 1;
        return 0;
    }
    if (n < 0) return -1;
    int whole = c->sent + n == length;
    c->batch = whole ? c->batch * 2 : n / (HEAD + BLOCK) + 1;
    if (c->batch > blocks_max) c->batch = blocks_max;
    c->sent += n;
    while (c->first != c->last) {
        uint32_t frame = HEAD + c->queue[c->first % QUEUE].length;
        if (c->sent < frame) break;
        c->sent -= frame;
        c->first++;
    }
    return whole;
}

/* Sends until the queue is empty or the socket takes no more; -1: drop the connection. */
static int pump(struct connection *c) {
    int state = 1;
    while (state > 0 && c->first != c->last) state = with_sendfile ? send_one(c) : send_batch(c);
    c->blocked = state == 0;
    return state < 0 ? -1 : 0;
}

static int greet(struct connection *c) {
    static char out[68 + 5 + sizeof have + 5];
    if (memcmp(c->in + 28, hello + 28, 20)) return -1;
    memcpy(out, hello, 68);
    put32(out + 68, have_length + 1);
    out[72] = 5;
    memcpy(out + 73, have, have_length);
    memcpy(out + 73 + have_length, "\0\0\0\1\1", 5);  /* unchoke */
    int length = 73 + have_length + 5, gone = c->dialled ? 68 : 0;
    c->greeted = 1;
    return send(c->fd, out + gone, length - gone, MSG_NOSIGNAL) == length - gone ? 0 : -1;
}

/* Reads once, unless it holds requests still. -1: drop the connection, 1: there may be more. */
static int take(struct connection *c) {
    int room = sizeof c->in - c->in_length, at = 0;
    ssize_t n = c->held ? 0 : recv(c->fd, c->in + c->in_length, room, 0);
    if ((n == 0 && !c->held) || (n < 0 && errno != EAGAIN)) return -1;
    if (n < 0) return 0;
    c->in_length += n;
    c->held = 0;
    if (!c->greeted) {
        if (c->in_length < 68) return 1;
        if (greet(c)) return -1;
        at = 68;
    }
    while (c->in_length - at >= 4) {
        uint32_t length = get32(c->in + at);
        if (length > sizeof c->in - 4) return -1;
        if (c->in_length - at < (int)length + 4) break;
        if (length == 13 && c->in[at + 4] == 6) {
            const char *body = c->in + at + 5;
            struct request r = {get32(body), get32(body + 4), get32(body + 8)};
            if (r.length > BLOCK) return -1;
            c->held = c->last - c->first == QUEUE;
            if (c->held) break;
            c->queue[c->last++ % QUEUE] = r;
        }
        at += length + 4;
    }
    c->in_length -= at;
    memmove(c->in, c->in + at, c->in_length);
    if (!c->blocked && pump(c)) return -1;
    return !(c->blocked && c->held);
}

static void welcome(int epoll, int fd, int dialled) {
    int one = 1;
    if (fd < 0) return;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) { close(fd); return; }
    c->fd = fd;
    c->dialled = dialled;
    c->batch = blocks_max;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (lowat) setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

/* Connects to the leecher and greets it; -1 while it does not listen. */
static int dial(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(leecher_port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (mss) setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof mss);
    if (connect(fd, (void *)&a, sizeof a) || send(fd, hello, 68, MSG_NOSIGNAL) != 68) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    leecher_is_here = 1;
    return fd;
}

static void drop(struct connection *c) {
    if (c->dialled) leecher_is_here = 0;
    close(c->fd);
    free(c);
}

static void serve(int listener) {
    int epoll = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN}, ready[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
    for (int n = 0;;) {
        if (n == 0 && leecher_port && !leecher_is_here) welcome(epoll, dial(), 1);
        n = epoll_wait(epoll, ready, 256, leecher_port ? DIAL_AGAIN_MS : -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = ready[i].data.ptr;
            if (!c) { welcome(epoll, accept4(listener, NULL, NULL, SOCK_NONBLOCK), 0); continue; }
            int state = 0;
            if (c->blocked && ready[i].events & EPOLLOUT) state = pump(c);
            if (!state && (c->held || ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                while ((state = take(c)) > 0);
            if (state < 0) drop(c);
        }
    }
}

int main(int argc, char **argv) {
    struct stat st;
    if (argc < 8 || argc > 10) {
        fprintf(stderr, "usage: see the head of reference.c\n");
        return 2;
    }
    memcpy(hello, "\x13" "BitTorrent protocol", 20);
    for (int i = 0; i < 20; i++) sscanf(argv[2] + 2 * i, "%2hhx", (unsigned char *)hello + 28 + i);
    memcpy(hello + 48, "-RF0001-000000000000", 20);
    file = open(argv[3], O_RDONLY);
    if (file < 0 || fstat(file, &st)) return perror(argv[3]), 1;
    piece_bytes = atoi(argv[4]);
    with_sendfile = argv[5][0] == 's';
    blocks_max = atoi(argv[6]);
    if (blocks_max < 1 || blocks_max > BATCH_MAX) return fprintf(stderr, "1 to 64 blocks\n"), 2;
    lowat = atoi(argv[7]);
    mss = argc > 8 ? atoi(argv[8]) : 0;
    leecher_port = argc > 9 ? atoi(argv[9]) : 0;
    uint32_t pieces = (st.st_size + piece_bytes - 1) / piece_bytes;
    if (pieces > 8 * sizeof have) return fprintf(stderr, "too many pieces\n"), 2;
    for (uint32_t i = 0; i < pieces; i++) have[i / 8] |= 0x80 >> i % 8;
    have_length = (pieces + 7) / 8;

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (mss) setsockopt(listener, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof mss);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 1024)) return perror("listen"), 1;
    serve(listener);
}
