// SPDX-License-Identifier: Apache-2.0
/*
 * The store whose files were damaged: what was written, or a refusal that names the file and says
 * what to do; never anything else. SALVER_FULL=1 damages every byte instead of a sample.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "control_store_world.h"

#include <fcntl.h>

static const char *const files[] = {"store.db", "store.db-wal", "store.db-mark"};
enum { N_FILES = 3, DB = 0, WAL = 1, MARK = 2, FILE_MAX = 4 << 20 };

// A file as bytes; -1: there is none.
static ssize_t read_file(const char *path, char *out)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, out, FILE_MAX);
    assert_true(n < FILE_MAX);
    if (fd >= 0)
        close(fd);
    return n;
}

static void write_file(const char *path, const char *p, ssize_t n)
{
    if (n < 0) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, (size_t)n), n);
    close(fd);
}

// The three files of a state folder.
struct image {
    char *bytes[N_FILES];
    ssize_t n[N_FILES];
};

static void image_read(struct image *m, const char *folder)
{
    for (int i = 0; i < N_FILES; i++) {
        if (!m->bytes[i])
            m->bytes[i] = xcalloc(1, FILE_MAX);
        m->n[i] = read_file(in(folder, files[i]), m->bytes[i]);
    }
}

static void image_write(const struct image *m, const char *folder)
{
    for (int i = 0; i < N_FILES; i++)
        write_file(in(folder, files[i]), m->bytes[i], m->n[i]);
}

// An empty log is none: SQLite makes one when it looks.
static bool image_equal(const struct image *a, const struct image *b)
{
    bool same = true;
    for (int i = 0; i < N_FILES; i++)
        same = same && (a->n[i] == b->n[i] || (i == WAL && a->n[i] <= 0 && b->n[i] <= 0)) &&
               (a->n[i] <= 0 || memcmp(a->bytes[i], b->bytes[i], (size_t)a->n[i]) == 0);
    return same;
}

static void image_finish(struct image *m)
{
    for (int i = 0; i < N_FILES; i++)
        xfree(m->bytes[i]);
}

// A store as it lies there after a kill (with its log) or after an orderly end, and its contents.
struct original {
    struct image files;
    struct buf all;
};

static void original_make(struct original *o, bool killed)
{
    assert_int_equal(store_open(dir, &s, &err), 0);
    fill_store(150);
    sqlite3_wal_checkpoint_v2(s->q.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    fill_store(12);
    assert_int_equal(read_all(&o->all), 0);
    if (!killed) {
        store_close(s);
        assert_int_equal(store_open(dir, &s, &err), 0);
        store_close(s);
    }
    image_read(&o->files, dir);
    assert_true(o->files.n[DB] > 0 && o->files.n[MARK] > 0 && killed == (o->files.n[WAL] > 0));
    if (killed)
        store_close(s);
    s = NULL;
}

static void original_finish(struct original *o)
{
    image_finish(&o->files);
    buf_finish(&o->all);
}

struct outcomes {
    unsigned long whole, refused;
};

// Opens what lies in `dir`. It is all there, and may be written; or refused, again and again, and
// left as it is.
static void judge(const struct original *o, const char *what, struct outcomes *seen)
{
    struct image before = {0}, after = {0};
    struct buf all = {0};
    image_read(&before, dir);
    int rc = store_open(dir, &s, &err);
    if (rc == 0 && read_all(&all) == 0) {
        if (strcmp(buf_cstr(&all), o->all.data) != 0)
            fail_msg("%s: other data", what);
        put("more", large_text(), 15000, 0); // takes pages of those that are free
        store_close(s);
        rc = store_open(dir, &s, &err);
        if (rc < 0)
            fail_msg("%s: read, written, and then refused: %s", what, err.msg);
        store_close(s);
        seen->whole++;
    } else if (rc == 0) {
        fail_msg("%s: refused only when it was read: %s", what, err.msg);
    } else {
        if (!strstr(err.msg, "store.db"))
            fail_msg("%s: refused by '%s'", what, err.msg);
        image_read(&after, dir);
        if (!image_equal(&before, &after))
            fail_msg("%s: refused, and changed", what);
        if (store_open(dir, &s, &err) != rc)
            fail_msg("%s: refused with %d, and not again", what, rc);
        seen->refused++;
    }
    s = NULL;
    image_finish(&before);
    image_finish(&after);
    buf_finish(&all);
}

// Every offset for SALVER_FULL, else about `sample` of them, others each time.
static ssize_t next_offset(ssize_t at, ssize_t n, unsigned long sample)
{
    if (count_from("SALVER_FULL", 0))
        return at + 1;
    return at + 1 + rand() % (1 + 2 * n / (ssize_t)sample);
}

static void flip(const struct original *o, int which, unsigned long sample, struct outcomes *seen)
{
    char what[64];
    ssize_t n = o->files.n[which];
    for (ssize_t at = rand() % 4; at < n; at = next_offset(at, n, sample)) {
        char was = o->files.bytes[which][at];
        o->files.bytes[which][at] = (char)(was ^ (rand() % 2 ? 1 << rand() % 8 : 1 + rand() % 255));
        snprintf(what, sizeof what, "%s, byte %zd %d for %d", files[which], at,
                 o->files.bytes[which][at], was);
        image_write(&o->files, dir);
        o->files.bytes[which][at] = was;
        judge(o, what, seen);
    }
}

// The bytes of the header that say which pages are free: nobody reads them but who writes.
static void flip_free_list(const struct original *o, struct outcomes *seen)
{
    char what[64];
    for (int bit = 32 * 8; bit < 40 * 8; bit++) {
        char *byte = &o->files.bytes[DB][bit / 8];
        *byte = (char)(*byte ^ 1 << bit % 8);
        snprintf(what, sizeof what, "free list, bit %d", bit);
        image_write(&o->files, dir);
        *byte = (char)(*byte ^ 1 << bit % 8);
        judge(o, what, seen);
    }
}

static void cut(struct original *o, int which, unsigned long sample, struct outcomes *seen)
{
    char what[64];
    ssize_t n = o->files.n[which];
    for (ssize_t at = 0; at < n; at = next_offset(at, n, sample)) {
        snprintf(what, sizeof what, "%s, cut at %zd of %zd", files[which], at, n);
        o->files.n[which] = at;
        image_write(&o->files, dir);
        judge(o, what, seen);
    }
    o->files.n[which] = n;
}

static void say(const char *what, const struct outcomes *seen)
{
    print_message("%s: %lu refused, %lu harmless\n", what, seen->refused, seen->whole);
}

static void flipped_bytes(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        struct original o = {0};
        struct outcomes db = {0}, wal = {0}, mark = {0};
        original_make(&o, killed);
        flip(&o, DB, killed ? 120 : 250, &db);
        say(killed ? "store.db with a log" : "store.db", &db);
        assert_true(db.refused > 50);
        flip_free_list(&o, &db);
        flip(&o, MARK, 16, &mark);
        assert_int_equal(mark.refused, 0);
        if (killed) {
            flip(&o, WAL, 150, &wal);
            say("store.db-wal", &wal);
            assert_true(wal.refused > 25);
        }
        original_finish(&o);
        tear_down(state);
        set_up(state);
    }
}

static void cut_files(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        struct original o = {0};
        struct outcomes db = {0}, wal = {0}, mark = {0};
        original_make(&o, killed);
        cut(&o, DB, 60, &db);
        say(killed ? "store.db with a log, cut" : "store.db, cut", &db);
        assert_true(db.refused > 25);
        assert_true(killed || db.whole == 0);
        cut(&o, MARK, 32, &mark);
        assert_int_equal(mark.refused, 0);
        if (killed) {
            cut(&o, WAL, 100, &wal);
            say("store.db-wal, cut", &wal);
            assert_true(wal.refused > 12); // beyond its end lie frames of an older round
        }
        original_finish(&o);
        tear_down(state);
        set_up(state);
    }
}

// Bytes that turn bad while the store is open: what is read is refused or right.
static void flipped_under_it(void **state)
{
    (void)state;
    struct original o = {0};
    struct outcomes seen = {0};
    struct buf all = {0};
    original_make(&o, false);
    image_write(&o.files, dir);
    assert_int_equal(store_open(dir, &s, &err), 0);
    int fd = open(in(dir, "store.db"), O_RDWR);
    for (ssize_t at = STORE_PAGE_BYTES; at < o.files.n[DB];
         at = next_offset(at, o.files.n[DB], 250)) {
        char was = o.files.bytes[DB][at], bad = (char)(was ^ 1 << rand() % 8);
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        sqlite3_db_release_memory(s->q.db);
        int rc = read_all(&all);
        if (rc == 0 && strcmp(buf_cstr(&all), o.all.data) != 0)
            fail_msg("byte %zd %d for %d: other data", at, bad, was);
        if (rc < 0 && (rc != STORE_E_DAMAGED || !strstr(err.msg, "store.db")))
            fail_msg("byte %zd: %d %s", at, rc, err.msg);
        seen.refused += rc < 0;
        seen.whole += rc == 0;
        rc = store_get(s, "apps/1", NULL, NULL, &err);
        if (rc != 0 && rc != STORE_E_DAMAGED)
            fail_msg("byte %zd: lost what is there: %d", at, rc);
        struct store_op op = {.key = "apps/1"};
        rc = store_txn(s, &op, 1, NULL, &err); // it is there: a lost key must not be made again
        if (rc != STORE_E_CONFLICT && rc != STORE_E_DAMAGED)
            fail_msg("byte %zd: made what is there: %d", at, rc);
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
        sqlite3_db_release_memory(s->q.db);
    }
    close(fd);
    say("store.db while open", &seen);
    assert_true(seen.refused > 50);
    assert_int_equal(read_all(&all), 0);
    assert_string_equal(buf_cstr(&all), o.all.data);
    buf_finish(&all);
    original_finish(&o);
}

static void swap_pages(struct image *m, ssize_t a, ssize_t b)
{
    char kept[STORE_PAGE_BYTES], *bytes = m->bytes[DB];
    memcpy(kept, bytes + a, sizeof kept);
    memcpy(bytes + a, bytes + b, sizeof kept);
    memcpy(bytes + b, kept, sizeof kept);
}

// Keys that a tree with its leaves in a wrong place doesn't find are not believed to be missing.
static void look_for_keys(const struct original *o, const struct image *wrong, const char *what)
{
    char key[32];
    image_write(&o->files, dir);
    assert_int_equal(store_open(dir, &s, &err), 0);
    write_file(in(dir, "store.db"), wrong->bytes[DB], wrong->n[DB]);
    sqlite3_db_release_memory(s->q.db);
    for (int i = 0; i < 37; i++) {
        snprintf(key, sizeof key, "\napps/%d=", i);
        if (!strstr(o->all.data, key))
            continue;
        snprintf(key, sizeof key, "apps/%d", i);
        int rc = store_get(s, key, NULL, NULL, &err);
        if (rc != 0 && rc != STORE_E_DAMAGED)
            fail_msg("%s: lost %s: %d", what, key, rc);
        struct store_op op = {.key = key};
        rc = store_txn(s, &op, 1, NULL, &err);
        if (rc != STORE_E_CONFLICT && rc != STORE_E_DAMAGED)
            fail_msg("%s: made %s anew: %d", what, key, rc);
    }
    store_close(s);
    s = NULL;
}

// The write of a page that went to another's place, before the store is opened and while it is
// open.
static void pages_in_wrong_places(void **state)
{
    (void)state;
    enum { LEAF = 10 };
    char what[64];
    struct original o = {0};
    struct image wrong = {0};
    struct outcomes seen = {0};
    original_make(&o, false);
    image_read(&wrong, dir);
    for (ssize_t a = STORE_PAGE_BYTES; a < o.files.n[DB]; a += STORE_PAGE_BYTES)
        for (ssize_t b = a + STORE_PAGE_BYTES; b < o.files.n[DB]; b += STORE_PAGE_BYTES) {
            bool leaves = o.files.bytes[DB][a] == LEAF && o.files.bytes[DB][b] == LEAF;
            if (!leaves && rand() % 40)
                continue;
            snprintf(what, sizeof what, "pages %zd and %zd", a / STORE_PAGE_BYTES,
                     b / STORE_PAGE_BYTES);
            swap_pages(&wrong, a, b);
            image_write(&wrong, dir);
            judge(&o, what, &seen);
            look_for_keys(&o, &wrong, what);
            swap_pages(&wrong, a, b);
        }
    say("pages in wrong places", &seen);
    assert_true(seen.refused > 10);
    image_finish(&wrong);
    original_finish(&o);
}

/*
 * What may lie in the folder: which of the files (d, w, m) of a living store, those of an older
 * copy (D, W, M), of another store (x, its database; y, its mark). Where nothing is wanted it
 * opens.
 */
static const struct {
    const char *name, *there;
    int rc;
    const char *says;
} mixes[] = {
    {"all", "dwm", 0, NULL},
    {"no mark", "dw", 0, NULL},
    {"an older copy of all", "DWM", 0, NULL},
    {"an older copy without its mark", "DW", 0, NULL},
    {"no log", "dm", STORE_E_DAMAGED, "acknowledged (store.db-wal?)"},
    {"no database", "wm", STORE_E_DAMAGED, "missing, and store.db-wal"},
    {"a mark alone", "m", STORE_E_DAMAGED, "missing, and store.db-mark"},
    {"an older copy, today's mark", "DWm", STORE_E_DAMAGED, "acknowledged"},
    {"today's database, an older log", "dWm", STORE_E_DAMAGED, "store.db"},
    {"another database", "xm", STORE_E_DAMAGED, "mark is of another store"},
    {"another mark", "dwy", STORE_E_DAMAGED, "mark is of another store"},
    {"another store", "xy", 0, NULL},
};

static void lay(char letter, const struct image *now, const struct image *old,
                const struct image *other)
{
    static const char letters[] = "dwmDWMx?y";
    int i = (int)(strchr(letters, letter) - letters);
    const struct image *from = i < 3 ? now : i < 6 ? old : other;
    write_file(in(dir, files[i % 3]), from->bytes[i % 3], from->n[i % 3]);
}

static void files_that_do_not_belong_together(void **state)
{
    (void)state;
    struct image now = {0}, old = {0}, other = {0};
    assert_int_equal(store_open(saved, &s, &err), 0);
    put("x", "other", 5, 0);
    store_close(s);
    image_read(&other, saved);
    assert_int_equal(store_open(dir, &s, &err), 0);
    fill_store(20);
    image_read(&old, dir);
    fill_store(3);
    image_read(&now, dir);
    store_close(s);
    s = NULL;
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        for (int f = 0; f < N_FILES; f++)
            unlink(in(dir, files[f]));
        for (const char *letter = mixes[i].there; *letter; letter++)
            lay(*letter, &now, &old, &other);
        int rc = store_open(dir, &s, &err);
        if (rc != mixes[i].rc || (rc < 0 && !strstr(err.msg, mixes[i].says)))
            fail_msg("%s: %d %s", mixes[i].name, rc, err.msg);
        store_close(s);
        s = NULL;
    }
    image_finish(&now);
    image_finish(&old);
    image_finish(&other);
}

/*
 * What SQLite can say of a file that is no store of ours. `sql` is run on a store (or, with `bare`,
 * on an empty database) by SQLite itself.
 */
static const struct {
    const char *name, *sql;
    bool bare;
    int rc;
    const char *says;
} strangers[] = {
    {"another program's", "CREATE TABLE t(a)", true, STORE_E_DAMAGED, "application id 0"},
    {"a newer format", "PRAGMA user_version = 2", false, SV_E_UNSUPPORTED,
     "format 2, of a newer Salver; this one reads up to 1"},
    {"no format", "PRAGMA user_version = 0", false, STORE_E_DAMAGED, "format 0"},
    {"a table more", "CREATE TABLE t(a)", false, STORE_E_DAMAGED, "another table: CREATE TABLE t"},
    {"a table less", "DROP TABLE log", false, STORE_E_DAMAGED, "another table"},
    {"a trigger", "CREATE TRIGGER t AFTER INSERT ON kv BEGIN DELETE FROM kv; END", false,
     STORE_E_DAMAGED, "another table: CREATE TRIGGER"},
    {"a key lost", "DELETE FROM kv WHERE key = x'61'", false, STORE_E_DAMAGED,
     "1 keys where 2 were written"},
    {"a value changed", "UPDATE kv SET value = x'61'", false, STORE_E_DAMAGED,
     "checksum of key 'a'"},
    {"a revision changed", "UPDATE kv SET revision = 3", false, STORE_E_DAMAGED, "checksum"},
    {"a lease changed", "UPDATE kv SET lease = 1", false, STORE_E_DAMAGED, "checksum"},
    {"another key", "UPDATE kv SET key = x'65' WHERE key = x'61'", false, STORE_E_DAMAGED,
     "checksum"},
    {"a key that is none", "UPDATE kv SET key = x'' WHERE key = x'61'", false, STORE_E_DAMAGED,
     "a key of 0 bytes"},
    {"no history", "DELETE FROM log", false, STORE_E_DAMAGED, "end of its history"},
    {"a hole in the history", "DELETE FROM log WHERE revision = 2", false, STORE_E_DAMAGED,
     "revision 2 of its history is not whole"},
    {"a history changed", "UPDATE log SET removed = 1", false, STORE_E_DAMAGED,
     "a checksum of its history"},
    {"no lease", "DELETE FROM lease", false, STORE_E_DAMAGED, "a lease is missing"},
    {"a longer lease", "UPDATE lease SET ttl_ns = ttl_ns + 1", false, STORE_E_DAMAGED,
     "checksum of a lease"},
    {"no meta", "DELETE FROM meta", false, STORE_E_DAMAGED, "'meta' is empty"},
    {"two metas",
     "INSERT INTO meta SELECT 2,id,revision,oldest,changes,keys,bytes,log_bytes,digest,"
     "next_lease,lease_digest,sum FROM meta",
     false, STORE_E_DAMAGED, "'meta' is wrong"},
    {"an older meta", "UPDATE meta SET revision = 2", false, STORE_E_DAMAGED, "'meta' is wrong"},
    {"nothing wrong", "VACUUM", false, 0, NULL},
    {"another journal", "PRAGMA journal_mode = DELETE", false, 0, NULL},
};

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

static void not_our_file(void **state)
{
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        uint64_t lease = 0;
        if (!strangers[i].bare) {
            assert_int_equal(store_open(dir, &s, &err), 0);
            assert_int_equal(store_lease_grant(s, NS_PER_S, 0, &lease, &err), 0);
            put("a", "1", 1, 0);
            put("b", "2", 1, lease);
            store_close(s);
            s = NULL;
        }
        run_sql(in(dir, "store.db"), strangers[i].sql);
        int rc = store_open(dir, &s, &err);
        if (rc != strangers[i].rc || (rc < 0 && !strstr(err.msg, strangers[i].says)))
            fail_msg("%s: %d %s", strangers[i].name, rc, err.msg);
        tear_down(state);
        set_up(state);
    }
}

static const struct {
    const char *name, *bytes;
    ssize_t n;
    const char *says;
} texts[] = {
    {"a text", "applications: []\n", 17, "not a database"},
    {"nothing", "", 0, "it is empty"},
    {"zeros", NULL, 8192, "not a database"},
    {"a header alone", "SQLite format 3", 16, "store.db"},
};

static void not_a_database(void **state)
{
    (void)state;
    static const char zeros[8192];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(in(dir, "store.db"), texts[i].bytes ? texts[i].bytes : zeros, texts[i].n);
        int rc = store_open(dir, &s, &err);
        if (rc != STORE_E_DAMAGED || !strstr(err.msg, texts[i].says) ||
            !strstr(err.msg, "move these away"))
            fail_msg("%s: %d %s", texts[i].name, rc, err.msg);
    }
    assert_int_equal(truncate(in(dir, "store.db"), STORE_FILE_MAX + 1L), 0);
    assert_int_equal(store_open(dir, &s, &err), STORE_E_DAMAGED);
    assert_non_null(strstr(err.msg, "more than 268435456 bytes"));
    unlink(in(dir, "store.db"));
    assert_int_equal(mkdir(in(dir, "store.db"), 0700), 0);
    assert_true(store_open(dir, &s, &err) < 0);
    rmdir(in(dir, "store.db"));
    assert_true(store_open(in(dir, "none"), &s, &err) < 0);
    assert_non_null(strstr(err.msg, "none/store.db"));
}

static const struct CMUnitTest tests[] = {
    TEST(flipped_bytes),
    TEST(cut_files),
    TEST(flipped_under_it),
    TEST(pages_in_wrong_places),
    TEST(files_that_do_not_belong_together),
    TEST(not_our_file),
    TEST(not_a_database),
};

int main(void)
{
    srand((unsigned)clock_now_ns());
    return cmocka_run_group_tests_name("control_store_damage", tests, NULL, NULL);
}
