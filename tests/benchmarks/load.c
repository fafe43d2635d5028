/* The clients of the benchmark: load -m MODE -p PORT -n CONNECTIONS ... (see usage()).
 *
 * One process, one thread, one epoll. What it sends was made beforehand: the request of a
 * handshake, and frames that are masked (and compressed) already, so that a message costs the
 * system calls and little else. What comes back is counted and measured, not understood: opcode,
 * RSV1, length. That the bytes are right as well is checked before, by checks.py.
 *
 * An exchange is what is repeated, and it depends on the mode:
 *   echo       one connection sends `depth` messages with one write and awaits as many answers
 *   broadcast  the first connection sends a message, all of them await it, each exactly once
 *   connect    connect, upgrade, Close, the server's Close, the end of the stream
 *   http       one connection sends a request and awaits the response
 *
 * Commands come by lines from stdin, each is answered by one line on stdout:
 *   open         connect all (`connect` has nothing to do here)
 *   run SECONDS  each connection begins exchanges for so long, one after the other, and at least
 *                one; answers when all have ended: messages, bytes of payload, connections that
 *                ended without the server's Close, seconds, own CPU
 *   close        close all
 * With -s it never sleeps between `run` and its answer: whoever wakes another process pays for it,
 * which would be the server, and no network charges that. Its own CPU is without what it waits.
 * Between commands pings are answered. The end of stdin ends the process; whatever isn't as it
 * should be ends it as well, with a line on stderr and exit code 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum mode { ECHO, BROADCAST, CONNECT, HTTP };
static const char *const MODES[] = {"echo", "broadcast", "connect", "http"};

enum state {
    GONE,
    UPGRADING, /* the request is out, the head of the answer is awaited */
    OPEN,      /* frames; of HTTP, responses */
    CLOSING,   /* our Close is out */
    ENDING     /* the server's Close has come, the end of the stream is awaited */
};

enum { CONTINUATION = 0, CLOSE = 8, PING = 9, PONG = 10 };

#define HEAD_SIZE 4096       /* of a response; those of the peers have less than 400 bytes */
#define CONTROL_SIZE 125     /* RFC 6455 section 5.5 */
#define PENDING_HANDSHAKES 32 /* far below every server's backlog */
#define EVENTS 512
#define PATIENCE 10000 /* ms in which something must happen while anything is awaited */

struct connection {
    int fd;
    enum state state;
    int write_armed;
    const char *out; /* what is left to be written, in memory that is shared and constant */
    size_t out_left;
    char pong[6 + CONTROL_SIZE]; /* waits until the frames before it are out */
    size_t pong_left;
    size_t next_frame;
    unsigned awaited; /* answers of the exchange */
    unsigned heard;   /* the last broadcast that came */
    /* the parser of frames */
    unsigned char header[10];
    unsigned header_size;
    uint64_t payload_left, message_size;
    unsigned char control[CONTROL_SIZE];
    unsigned control_size;
    unsigned message_opcode, message_compressed; /* opcode 0: between messages */
    /* the parser of heads */
    char head[HEAD_SIZE];
    size_t head_size;
};

/* The plan, from the command line. */
static enum mode mode;
static int port;
static unsigned count = 1, depth = 1, opcode = 1;
static uint64_t answer_size; /* of an uncompressed message, or of a body */
static int compressed;
static char *request;
static size_t request_size;
static char *frames;          /* `frame_count` of them, then the first `depth` again, so that */
static size_t *frame_offsets; /* any `depth` in a row can be written at once */
static size_t frame_count;

static struct connection *connections;
static int poll_fd;
static char buffer[1 << 18];

/* The run. */
static double deadline;
static int running;
static unsigned in_flight; /* exchanges; of a broadcast, deliveries; of `open`, handshakes */
static unsigned broadcasts;
static uint64_t messages, payload_bytes, unclean;
static int spinning;  /* whether to wait awake in `run` */
static double waited; /* CPU of that */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- writing ---- */

static void arm(struct connection *connection, int write) {
    if (connection->write_armed == write) return;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0),
                                .data.ptr = connection};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, connection->fd, &event);
    connection->write_armed = write;
}

static size_t write_some(struct connection *connection, const char *data, size_t size) {
    ssize_t written = send(connection->fd, data, size, MSG_NOSIGNAL);
    if (written < 0) {
        if (errno != EAGAIN) fail("a send failed: %s", strerror(errno));
        return 0;
    }
    return (size_t)written;
}

static void flush(struct connection *connection) {
    while (connection->out_left) {
        size_t written = write_some(connection, connection->out, connection->out_left);
        if (!written) break;
        connection->out += written;
        connection->out_left -= written;
    }
    if (!connection->out_left && connection->pong_left) {
        size_t written = write_some(connection, connection->pong, connection->pong_left);
        if (written && written < connection->pong_left) fail("half a pong was taken");
        connection->pong_left -= written;
    }
    arm(connection, connection->out_left || connection->pong_left);
}

static void write_all(struct connection *connection, const char *data, size_t size) {
    if (connection->out_left) fail("written before the last was out");
    connection->out = data;
    connection->out_left = size;
    flush(connection);
}

static void write_close(struct connection *connection) {
    static const char frame[] = "\x88\x82\0\0\0\0\x03\xe8"; /* 1000, a mask of zeros */
    connection->state = CLOSING;
    write_all(connection, frame, sizeof frame - 1);
}

static void answer_ping(struct connection *connection) {
    if (connection->pong_left) return; /* one may stand for several, RFC 6455 section 5.5.3 */
    memcpy(connection->pong, "\x8a\x80\0\0\0\0", 6); /* a mask of zeros */
    connection->pong[1] = (char)(0x80 | connection->control_size);
    memcpy(connection->pong + 6, connection->control, connection->control_size);
    connection->pong_left = 6 + connection->control_size;
    flush(connection);
}

/* ---- exchanges ---- */

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("no socket: %s", strerror(errno));
    /* The kernel does this without the server, as long as its backlog isn't full. */
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("can't connect to port %d: %s", port, strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    size_t next_frame = connection->next_frame;
    memset(connection, 0, offsetof(struct connection, head));
    connection->head_size = 0;
    connection->next_frame = next_frame;
    connection->fd = fd;
    connection->heard = broadcasts;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll: %s", strerror(errno));
    if (mode == HTTP) {
        connection->state = OPEN;
    } else {
        connection->state = UPGRADING;
        write_all(connection, request, request_size);
    }
}

static void begin_exchange(struct connection *connection) {
    switch (mode) {
    case CONNECT:
        open_connection(connection);
        break;
    case HTTP:
        connection->awaited = 1;
        write_all(connection, request, request_size);
        break;
    default: {
        unsigned sent = mode == ECHO ? depth : 1;
        size_t first = connection->next_frame;
        connection->next_frame = (first + sent) % frame_count;
        connection->awaited = mode == ECHO ? depth : 0;
        if (mode == BROADCAST) broadcasts++;
        write_all(connection, frames + frame_offsets[first],
                  frame_offsets[first + sent] - frame_offsets[first]);
    }
    }
    in_flight += mode == BROADCAST ? count : 1;
}

/* An exchange has ended (a broadcast: one of its deliveries); `connection` begins the next. */
static void end_exchange(struct connection *connection) {
    in_flight--;
    if (mode == BROADCAST) {
        if (in_flight) return;
        connection = connections;
    }
    if (seconds_of(CLOCK_MONOTONIC) < deadline) begin_exchange(connection);
}

static void take_answer(struct connection *connection) {
    messages++;
    if (mode == BROADCAST) {
        if (connection->heard == broadcasts) fail("a broadcast was delivered twice");
        connection->heard = broadcasts;
        end_exchange(connection);
    } else {
        if (!connection->awaited) fail("an answer that nobody asked for");
        if (--connection->awaited == 0) end_exchange(connection);
    }
}

static void take_upgrade(struct connection *connection) {
    if (strncmp(connection->head, "HTTP/1.1 101 ", 13) != 0)
        fail("no upgrade: %.60s", connection->head);
    int extended = strcasestr(connection->head, "\r\nSec-WebSocket-Extensions:") != NULL;
    if (extended != compressed)
        fail(compressed ? "compression was declined" : "an extension that nobody asked for");
    connection->state = OPEN;
    if (running && mode == CONNECT)
        write_close(connection);
    else
        in_flight--;
}

static void take_end(struct connection *connection) {
    if (connection->state < CLOSING) fail("the server closed a connection");
    if (connection->state == CLOSING) unclean++;
    close(connection->fd);
    connection->state = GONE;
    if (!running) {
        in_flight--;
        return;
    }
    messages++;
    end_exchange(connection);
}

/* ---- reading ---- */

static void take_frame(struct connection *connection) {
    unsigned code = connection->header[0] & 15, is_last = connection->header[0] & 128;
    switch (code) {
    case PING:
        answer_ping(connection);
        return;
    case PONG:
        return;
    case CLOSE:
        if (connection->state != CLOSING)
            fail("the server said Close %u: %.*s",
                 connection->control_size < 2
                     ? 1005
                     : connection->control[0] * 256u + connection->control[1],
                 (int)connection->control_size - 2, (char *)connection->control + 2);
        connection->state = ENDING;
        return;
    default:
        if (!is_last) return;
    }
    uint64_t size = connection->message_size;
    if (connection->message_opcode != opcode)
        fail("opcode %u instead of %u", connection->message_opcode, opcode);
    if (compressed ? !connection->message_compressed || size == 0 || size >= answer_size
                   : connection->message_compressed || size != answer_size)
        fail("a message of %llu bytes, compressed: %u; sent were %llu",
             (unsigned long long)size, connection->message_compressed,
             (unsigned long long)answer_size);
    payload_bytes += size;
    connection->message_opcode = 0;
    connection->message_size = 0;
    take_answer(connection);
}

/* Looks at the header as far as it has come; returns whether it is whole. */
static int parse_header(struct connection *connection) {
    const unsigned char *header = connection->header;
    if (connection->header_size < 2) return 0;
    unsigned size = header[1], code = header[0] & 15;
    if (size & 128) fail("the server masks its frames");
    unsigned wanted = size == 126 ? 4 : size == 127 ? 10 : 2;
    if (connection->header_size < wanted) return 0;
    uint64_t length = wanted == 2 ? size : 0;
    for (unsigned i = 2; i < wanted; i++) length = length << 8 | header[i];
    connection->payload_left = length;
    if (code >= CLOSE) {
        if (length > CONTROL_SIZE) fail("a control frame of %u bytes", (unsigned)length);
        connection->control_size = 0;
    } else {
        if ((code == CONTINUATION) != (connection->message_opcode != 0))
            fail("frames of a message out of order");
        if (code != CONTINUATION) {
            connection->message_opcode = code;
            connection->message_compressed = header[0] >> 6 & 1;
        }
        connection->message_size += length;
    }
    return 1;
}

static void feed_frames(struct connection *connection, const char *data, size_t size) {
    for (;;) {
        /* payload_left counts only once the header is whole. */
        while (!connection->payload_left) {
            if (!size) return;
            connection->header[connection->header_size++] = (unsigned char)*data++;
            size--;
            if (!parse_header(connection)) continue;
            connection->header_size = 0;
            if (!connection->payload_left) take_frame(connection);
        }
        size_t taken = size < connection->payload_left ? size : connection->payload_left;
        if ((connection->header[0] & 15) >= CLOSE) {
            memcpy(connection->control + connection->control_size, data, taken);
            connection->control_size += (unsigned)taken;
        }
        connection->payload_left -= taken;
        data += taken;
        size -= taken;
        if (connection->payload_left) return;
        take_frame(connection);
    }
}

/* Takes the head of a response, up to its empty line; returns how much of the data that was. */
static size_t feed_head(struct connection *connection, const char *data, size_t size) {
    size_t before = connection->head_size;
    size_t room = HEAD_SIZE - 1 - before, taken = size < room ? size : room;
    memcpy(connection->head + before, data, taken);
    connection->head[before + taken] = 0;
    char *end = strstr(connection->head, "\r\n\r\n");
    if (!end) {
        if (taken == room) fail("a head of more than %d bytes", HEAD_SIZE);
        connection->head_size += taken;
        return taken;
    }
    end[4] = 0;
    taken = (size_t)(end + 4 - connection->head) - before;
    connection->head_size = 0;
    return taken;
}

static int head_is_whole(const struct connection *connection) {
    return connection->head_size == 0;
}

static void feed_responses(struct connection *connection, const char *data, size_t size) {
    while (size) {
        if (!connection->payload_left) {
            size_t taken = feed_head(connection, data, size);
            data += taken;
            size -= taken;
            if (!head_is_whole(connection)) return;
            if (strncmp(connection->head, "HTTP/1.1 200 ", 13) != 0)
                fail("no 200: %.60s", connection->head);
            const char *length = strcasestr(connection->head, "\r\ncontent-length:");
            if (!length || strtoull(length + 17, NULL, 10) != answer_size)
                fail("not the body that was expected: %s", connection->head);
            connection->payload_left = answer_size;
        }
        size_t taken = size < connection->payload_left ? size : connection->payload_left;
        connection->payload_left -= taken;
        data += taken;
        size -= taken;
        if (!connection->payload_left) {
            payload_bytes += answer_size;
            take_answer(connection);
        }
    }
}

static void feed(struct connection *connection, const char *data, size_t size) {
    if (mode == HTTP) {
        feed_responses(connection, data, size);
        return;
    }
    if (connection->state == UPGRADING) {
        size_t taken = feed_head(connection, data, size);
        if (!head_is_whole(connection)) return;
        data += taken;
        size -= taken;
        take_upgrade(connection);
    }
    feed_frames(connection, data, size);
}

static void read_some(struct connection *connection) {
    ssize_t size = recv(connection->fd, buffer, sizeof buffer, 0);
    if (size > 0)
        feed(connection, buffer, (size_t)size);
    else if (size == 0 || errno == ECONNRESET)
        take_end(connection);
    else if (errno != EAGAIN)
        fail("a read failed: %s", strerror(errno));
}

/* ---- commands ---- */

static char command[64];

static int wait_awake(struct epoll_event *events, int timeout) {
    int ready = epoll_wait(poll_fd, events, EVENTS, 0);
    if (ready) return ready;
    double cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    double end = seconds_of(CLOCK_MONOTONIC) + timeout / 1e3;
    while (!ready && seconds_of(CLOCK_MONOTONIC) < end)
        ready = epoll_wait(poll_fd, events, EVENTS, 0);
    waited += seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    return ready;
}

/* Waits for events and handles them; returns whether a command has come. */
static int handle_events(int timeout) {
    static struct epoll_event events[EVENTS];
    int ready = running && spinning ? wait_awake(events, timeout)
                                    : epoll_wait(poll_fd, events, EVENTS, timeout);
    int commanded = 0;
    if (ready == 0) fail("stalled: %u of the answers don't come", in_flight);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (!connection) {
            ssize_t size = read(0, command, sizeof command - 1);
            if (size <= 0) exit(0);
            command[size] = 0;
            commanded = 1;
            continue;
        }
        if (events[i].events & EPOLLOUT) flush(connection);
        if (events[i].events & ~(unsigned)EPOLLOUT) read_some(connection);
    }
    return commanded;
}

static void open_all(void) {
    for (unsigned i = 0; mode != CONNECT && i < count; i++) {
        while (in_flight >= PENDING_HANDSHAKES) handle_events(PATIENCE);
        connections[i].next_frame = frame_count ? i % frame_count : 0;
        open_connection(&connections[i]);
        if (mode != HTTP) in_flight++;
    }
    while (in_flight) handle_events(PATIENCE);
    puts("opened");
}

static void run(double duration) {
    double began = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    messages = payload_bytes = unclean = 0;
    waited = 0;
    deadline = began + duration;
    running = 1;
    for (unsigned i = 0; i < (mode == BROADCAST ? 1 : count); i++) begin_exchange(&connections[i]);
    while (in_flight) handle_events(PATIENCE);
    running = 0;
    printf("%llu %llu %llu %.9f %.9f\n", (unsigned long long)messages,
           (unsigned long long)payload_bytes, (unsigned long long)unclean,
           seconds_of(CLOCK_MONOTONIC) - began,
           seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu - waited);
}

static void close_all(void) {
    for (unsigned i = 0; i < count; i++) {
        if (connections[i].state == GONE) continue;
        if (mode == HTTP) {
            close(connections[i].fd);
            connections[i].state = GONE;
        } else {
            in_flight++;
            write_close(&connections[i]);
        }
    }
    while (in_flight) handle_events(PATIENCE);
    puts("closed");
}

/* ---- the plan ---- */

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("can't read %s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, file) != *size) fail("can't read %s", path);
    fclose(file);
    return data;
}

/* Each frame has its size before it, four bytes, the lowest first. */
static size_t size_before(const char *frame) {
    const unsigned char *size = (const unsigned char *)frame;
    return size[0] | size[1] << 8 | size[2] << 16 | (size_t)size[3] << 24;
}

static void read_frames(const char *path) {
    size_t size, used = 0, at = 0;
    char *data = read_file(path, &size);
    while (at < size) {
        at += 4 + size_before(data + at);
        frame_count++;
    }
    if (!frame_count) fail("no frames in %s", path);
    frame_offsets = calloc(frame_count + depth + 1, sizeof *frame_offsets);
    frames = malloc(size * (2 + depth / frame_count));
    for (size_t i = 0; i < frame_count + depth; i++) {
        if (i % frame_count == 0) at = 0;
        size_t length = size_before(data + at);
        memcpy(frames + used, data + at + 4, length);
        at += 4 + length;
        used += length;
        frame_offsets[i + 1] = used;
    }
    free(data);
}

static void usage(void) {
    fail("load -m echo|broadcast|connect|http -p PORT -n CONNECTIONS -r FILE  of a request\n"
         "     [-d DEPTH] [-f FILE]  of frames, each behind its size\n"
         "     [-o OPCODE] [-l LENGTH] [-z]  of answers; -z: they are compressed\n"
         "     [-s]  wait awake");
}

int main(int argc, char **argv) {
    int option;
    const char *frames_path = NULL;
    while ((option = getopt(argc, argv, "m:p:n:d:r:f:o:l:zs")) != -1) {
        switch (option) {
        case 'm':
            while (strcmp(MODES[mode], optarg) != 0)
                if (++mode > HTTP) usage();
            break;
        case 'p': port = atoi(optarg); break;
        case 'n': count = (unsigned)atoi(optarg); break;
        case 'd': depth = (unsigned)atoi(optarg); break;
        case 'r': request = read_file(optarg, &request_size); break;
        case 'f': frames_path = optarg; break;
        case 'o': opcode = (unsigned)atoi(optarg); break;
        case 'l': answer_size = strtoull(optarg, NULL, 10); break;
        case 'z': compressed = 1; break;
        case 's': spinning = 1; break;
        default: usage();
        }
    }
    if (!port || !count || !request) usage();
    if (mode <= BROADCAST && !frames_path) usage();
    if (frames_path) read_frames(frames_path);
    setvbuf(stdout, NULL, _IOLBF, 0);
    connections = calloc(count, sizeof *connections);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        double duration;
        while (!handle_events(-1)) continue;
        if (!strcmp(command, "open\n")) open_all();
        else if (!strcmp(command, "close\n")) close_all();
        else if (sscanf(command, "run %lf", &duration) == 1) run(duration);
        else fail("no such command: %s", command);
    }
}
