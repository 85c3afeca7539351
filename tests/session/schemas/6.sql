-- A journal of schema 6, as it was written then; never to be changed.
BEGIN TRANSACTION;
CREATE TABLE candidates (                    -- apart, so that counting micrographs stays cheap
        micrograph_id INTEGER PRIMARY KEY REFERENCES micrograph(id),
        yx_score BLOB NOT NULL                   -- float32 little-endian (n, 3): y, x, score; best first
    ) STRICT;
INSERT INTO "candidates" VALUES(1,X'00001041000010416666663F0000004100000041CDCC4C3F');
INSERT INTO "candidates" VALUES(2,X'0000803F000000406666663F00004040000080400000C03E');
INSERT INTO "candidates" VALUES(3,X'');
CREATE TABLE crash (                         -- ends of the daemon that nobody asked for
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,                        -- when the next one started
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        micrograph_id INTEGER REFERENCES micrograph(id)  -- that was on the device
    , number INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE micrograph (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        name TEXT NOT NULL,
        generation INTEGER NOT NULL,
        latest INTEGER NOT NULL DEFAULT 1,       -- the newest generation of this name
        published INTEGER NOT NULL DEFAULT 0,    -- the outputs hold the rows of this generation
        state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'picked', 'failed')),
        reason TEXT,
        size_bytes INTEGER, mtime_ns INTEGER, inode INTEGER,
        height_px INTEGER, width_px INTEGER, dtype TEXT, data_offset_bytes INTEGER, compressed INTEGER,
        pixel_y_angstrom REAL, pixel_x_angstrom REAL,
        params_id INTEGER REFERENCES params(id),
        weights_sha256 TEXT, code_version TEXT,
        n_picks INTEGER, n_candidates INTEGER,
        threshold REAL,
        record_seq INTEGER,                      -- order of the rows in the outputs
        seconds TEXT,                            -- JSON, per stage
        first_seen_at REAL NOT NULL, ready_at REAL, recorded_at REAL, file_dirty INTEGER NOT NULL DEFAULT 0, content TEXT, source_missing INTEGER NOT NULL DEFAULT 0, asked INTEGER NOT NULL DEFAULT 0, enlargement REAL,
        UNIQUE (session_id, name, generation)
    ) STRICT;
INSERT INTO "micrograph" VALUES(1,1,'grid/a.mrc',1,0,0,'picked',NULL,9,1,9,4,5,'<f4',1024,0,1.5,1.5,1,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','0.1.0',2,2,0.5,1,'{"read": 0.25}',3.0,3.0,4.0,0,NULL,0,0,1.25);
INSERT INTO "micrograph" VALUES(2,1,'grid/a.mrc',2,1,1,'picked',NULL,9,2,9,4,5,'<f4',1024,0,1.5,1.5,1,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','0.1.0',1,2,0.5,3,'{"read": 0.25}',5.0,5.0,6.0,0,NULL,0,0,1.25);
INSERT INTO "micrograph" VALUES(3,1,'empty.mrc',1,1,1,'picked',NULL,9,1,8,4,5,'<f4',1024,0,1.5,1.5,1,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','0.1.0',0,0,0.5,2,'{"read": 0.25}',3.0,3.0,4.0,0,NULL,0,0,1.25);
INSERT INTO "micrograph" VALUES(4,1,'junk.mrc',1,1,0,'failed','the image is blank',9,1,7,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,4,NULL,3.0,NULL,4.0,0,NULL,0,0,NULL);
INSERT INTO "micrograph" VALUES(5,1,'next.mrc',1,1,0,'ready',NULL,9,1,6,4,5,'<f4',1024,0,1.5,1.5,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,7.0,7.0,NULL,0,NULL,0,0,NULL);
INSERT INTO "micrograph" VALUES(6,1,'short.mrc',1,1,0,'waiting','10 of 20 bytes',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,8.0,NULL,NULL,0,NULL,0,0,NULL);
CREATE TABLE output (
        session_id INTEGER NOT NULL REFERENCES session(id),
        file TEXT NOT NULL,
        length_bytes INTEGER NOT NULL,
        dirty INTEGER NOT NULL,
        PRIMARY KEY (session_id, file)
    ) STRICT;
INSERT INTO "output" VALUES(1,'particles.star',500,0);
INSERT INTO "output" VALUES(1,'autopick.star',200,0);
CREATE TABLE params (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        version INTEGER NOT NULL,
        json TEXT NOT NULL,
        created_at REAL NOT NULL, weights_sha256 TEXT, default_threshold REAL,
        UNIQUE (session_id, version)
    ) STRICT;
INSERT INTO "params" VALUES(1,1,1,'{"diameter_angstrom": 150.0, "pixel_size_angstrom": null, "negative_stain": false, "threshold": null, "model": "general"}',1.0,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',0.5);
INSERT INTO "params" VALUES(2,1,2,'{"diameter_angstrom": 150.0, "pixel_size_angstrom": null, "negative_stain": false, "threshold": 0.3, "model": "general"}',5.0,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',0.5);
INSERT INTO "params" VALUES(3,2,1,'{"diameter_angstrom": 150.0, "pixel_size_angstrom": null, "negative_stain": false, "threshold": null, "model": "general"}',1.0,NULL,NULL);
CREATE TABLE passed_over (                   -- there before the session, and not wanted by it
        session_id INTEGER NOT NULL REFERENCES session(id),
        name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        PRIMARY KEY (session_id, name)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "passed_over" VALUES(1,'before.mrc',9,1,5);
CREATE TABLE session (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        watch_root TEXT NOT NULL,
        out_dir TEXT NOT NULL,
        glob TEXT NOT NULL,
        micrograph_prefix TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        params_id INTEGER REFERENCES params(id),
        pixel_size_angstrom REAL,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL
    , revision INTEGER NOT NULL DEFAULT 0, expected_end_at REAL, backfill TEXT NOT NULL DEFAULT 'all') STRICT;
INSERT INTO "session" VALUES(1,'s1','/in','/out','**/*.mrc','MotionCorr/job002/','running',NULL,2,1.5,1.0,2.0,3,99.0,'new-only');
INSERT INTO "session" VALUES(2,'old','/in2','/out2','*.mrc','','failed','weights are gone',3,NULL,1.0,2.0,0,NULL,'all');
CREATE TABLE transition (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES session(id),
        verb TEXT NOT NULL,
        from_state TEXT NOT NULL,
        to_state TEXT NOT NULL,
        reason TEXT,
        at REAL NOT NULL
    ) STRICT;
INSERT INTO "transition" VALUES(1,1,'start','created','waiting',NULL,1.0);
INSERT INTO "transition" VALUES(2,1,'found','waiting','running',NULL,2.0);
CREATE INDEX micrograph_by_state ON micrograph (session_id, latest, state, ready_at, recorded_at);
CREATE INDEX micrograph_by_record ON micrograph (session_id, record_seq);
CREATE INDEX micrograph_by_publication ON micrograph (session_id, published, n_picks, recorded_at);
CREATE INDEX micrograph_by_file ON micrograph (session_id) WHERE file_dirty = 1;
CREATE INDEX micrograph_by_sight ON micrograph (session_id, first_seen_at);
CREATE INDEX crash_by_micrograph ON crash (micrograph_id);
CREATE INDEX micrograph_by_content ON micrograph (session_id, content) WHERE content IS NOT NULL;
CREATE INDEX micrograph_by_absence ON micrograph (session_id) WHERE source_missing = 1;
COMMIT;
PRAGMA user_version = 6;
