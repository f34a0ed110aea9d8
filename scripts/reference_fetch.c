/* The least that fetching a torrent can do: one thread, a deep queue of requests, every byte
 * received once, hashed and written while it is in the cache. `bench` holds real programs to it.
 *
 *   reference_fetch TORRENT INFOHASH_HEX SIZE PIECE_BYTES OUT PORT...
 *
 * Each PORT of 127.0.0.1 is a seed that has everything and answers in the order it was asked, as
 * reference.c does. A source fetches whole pieces, so a piece is hashed in order as it comes and
 * nothing is ever read back. What one recv brought is written with one pwritev. Prints the CPU
 * seconds and the wall time of all of it; exits 1 when a piece is not what TORRENT says.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 16384, HEAD = 13, ASK = 17,
    QUEUE = 512, ASKED_AT_ONCE = 64,  /* requests under way, and in one send */
    BUFFER = 256 * 1024,              /* less than a core's own cache */
    PARTS_MAX = BUFFER / BLOCK + 2,
    SOURCES_MAX = 64,
};

struct source {
    int fd, greeted, unchoked;
    uint32_t waiting;                  /* blocks asked for and not received */
    uint32_t ask_piece, ask_at, ask_end;
    uint32_t piece, at;                /* what is received, and how much of it has come */
    uint32_t left, skip;               /* of the block, or of a message of no use */
    int carried;                       /* bytes of a head that is not whole */
    char carry[HEAD];
    EVP_MD_CTX *hash;
};

static char buffer[HEAD + BUFFER];
static struct iovec parts[PARTS_MAX];
static int part_count, file;
static off_t part_start, part_end;
static uint64_t size;
static uint32_t piece_bytes, piece_count, next_piece, pieces_done;
static const unsigned char *expected;

static void put32(char *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }
static uint32_t get32(const char *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "not as it should be");
    exit(1);
}

static uint32_t length_of(uint32_t piece) {
    uint64_t rest = size - (uint64_t)piece * piece_bytes;
    return rest < piece_bytes ? rest : piece_bytes;
}

/* Asks for as many blocks as have become free, once that is worth a send. */
static void ask(struct source *s) {
    char out[ASKED_AT_ONCE * ASK];
    while (s->unchoked && s->waiting + ASKED_AT_ONCE <= QUEUE) {
        int length = 0;
        while (length < (int)sizeof out) {
            if (s->ask_at == s->ask_end) {
                if (next_piece == piece_count) break;
                s->ask_piece = next_piece++;
                s->ask_at = 0;
                s->ask_end = length_of(s->ask_piece);
            }
            uint32_t rest = s->ask_end - s->ask_at, block = rest < BLOCK ? rest : BLOCK;
            memcpy(out + length, "\0\0\0\15\6", 5);
            put32(out + length + 5, s->ask_piece);
            put32(out + length + 9, s->ask_at);
            put32(out + length + 13, block);
            s->ask_at += block;
            s->waiting++;
            length += ASK;
        }
        if (!length) return;
        if (send(s->fd, out, length, MSG_NOSIGNAL) != length) fail("send");
    }
}

static void flush(void) {
    if (part_count && pwritev(file, parts, part_count, part_start) != part_end - part_start)
        fail("write");
    part_count = 0;
}

/* Takes a part of a block: hashes it now, writes it with what follows it in the file. */
static void store(struct source *s, char *bytes, uint32_t length) {
    off_t place = (off_t)s->piece * piece_bytes + s->at;
    if (part_count && (place != part_end || part_count == PARTS_MAX)) flush();
    if (!part_count) part_start = place;
    parts[part_count++] = (struct iovec){bytes, length};
    part_end = place + length;
    EVP_DigestUpdate(s->hash, bytes, length);
    s->at += length;
    if (s->at == length_of(s->piece)) {
        unsigned char found[EVP_MAX_MD_SIZE];
        EVP_DigestFinal_ex(s->hash, found, NULL);
        errno = 0;
        if (memcmp(found, expected + 20 * s->piece, 20)) fail("hash of a piece");
        pieces_done++;
    }
}

static void begin_block(struct source *s, const char *head, uint32_t length) {
    uint32_t piece = get32(head + 5), at = get32(head + 9);
    if (at == 0 && piece < piece_count) {
        s->piece = piece;
        s->at = 0;
        EVP_DigestInit_ex(s->hash, EVP_sha1(), NULL);
    }
    errno = 0;
    s->left = length - 9;
    if (piece != s->piece || at != s->at || s->left > length_of(piece) - at)
        fail("order of blocks");
    s->waiting--;
}

/* Reads a message's head; returns its length, or 0 while it is not whole. */
static int take_head(struct source *s, const char *head, int there) {
    if (!s->greeted) {
        if (there < 5) return 0;
        s->greeted = 1;
        s->skip = 68 - 5;
        return 5;
    }
    if (there < 4) return 0;
    uint32_t length = get32(head);
    if (!length) return 4;
    if (there < 5 || (head[4] == 7 && there < HEAD)) return 0;
    if (head[4] == 7) {
        begin_block(s, head, length);
        return HEAD;
    }
    if (head[4] == 1) s->unchoked = 1;
    s->skip = length - 1;
    return 5;
}

static void take(struct source *s) {
    memcpy(buffer, s->carry, s->carried);
    ssize_t n = recv(s->fd, buffer + s->carried, BUFFER, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("recv");
    int at = 0, end = s->carried + n;
    while (at < end) {
        uint32_t there = end - at, *rest = s->left ? &s->left : &s->skip;
        if (*rest) {
            uint32_t length = there < *rest ? there : *rest;
            if (s->left) store(s, buffer + at, length);
            *rest -= length;
            at += length;
        } else {
            int head = take_head(s, buffer + at, there);
            if (!head) break;
            at += head;
        }
    }
    flush();
    s->carried = end - at;
    memcpy(s->carry, buffer + at, s->carried);
    ask(s);
}

static void meet(struct source *s, int epoll, int port, const char *info_hash) {
    char hello[68 + 5] = "\x13" "BitTorrent protocol";
    unsigned char *hash = (unsigned char *)hello + 28;
    for (int i = 0; i < 20; i++) sscanf(info_hash + 2 * i, "%2hhx", hash + i);
    memcpy(hello + 48, "-RG0001-000000000000\0\0\0\1\2", 25);  /* and interested */
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s->fd, (void *)&a, sizeof a)) fail("connect");
    if (send(s->fd, hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello) fail("send");
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    s->hash = EVP_MD_CTX_new();
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e);
}

static void read_hashes(const char *path) {
    static const char key[] = "6:pieces";
    int torrent = open(path, O_RDONLY);
    off_t length = torrent < 0 ? -1 : lseek(torrent, 0, SEEK_END);
    char *all = length < 0 ? NULL : malloc(length);
    if (!all || pread(torrent, all, length, 0) != length) fail(path);
    char *found = memmem(all, length, key, sizeof key - 1);
    char *hashes = found ? memchr(found + sizeof key, ':', 12) : NULL;
    errno = 0;
    if (!hashes || hashes + 1 + 20 * piece_count > all + length) fail(path);
    expected = (unsigned char *)hashes + 1;
    close(torrent);
}

static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    static struct source sources[SOURCES_MAX];
    struct timespec began, done;
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (argc < 7 || argc - 6 > SOURCES_MAX) {
        fprintf(stderr, "usage: see the head of reference_fetch.c\n");
        return 2;
    }
    size = strtoull(argv[3], NULL, 10);
    piece_bytes = atoi(argv[4]);
    piece_count = (size + piece_bytes - 1) / piece_bytes;
    read_hashes(argv[1]);
    file = open(argv[5], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    /* Space taken at once spares the file system a look for each write. */
    if (file < 0 || (fallocate(file, 0, 0, size) && ftruncate(file, size))) fail(argv[5]);
    int epoll = epoll_create1(0);
    for (int i = 6; i < argc; i++) meet(&sources[i - 6], epoll, atoi(argv[i]), argv[2]);
    while (pieces_done < piece_count) {
        struct epoll_event ready[SOURCES_MAX];
        int n = epoll_wait(epoll, ready, SOURCES_MAX, -1);
        for (int i = 0; i < n; i++) take(ready[i].data.ptr);
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    clock_gettime(CLOCK_MONOTONIC, &done);
    printf("user %.3f s, system %.3f s, wall %.3f s\n", seconds(used.ru_utime),
           seconds(used.ru_stime),
           done.tv_sec - began.tv_sec + (done.tv_nsec - began.tv_nsec) / 1e9);
}
