"""Programs that want to pass without solving anything, to get out, to stay, or to use the machine up.

Each is judged by `assert answer(2) == 4`. Those that try to reach something define `answer` so that it is right exactly
when they reached it. `{folder}`, `{port}` and `{secret}` stand for a folder that everybody may use, a port that listens
and a word that only the tests know.
"""

from __future__ import annotations

TESTS = "word = {secret!r}\nassert answer(2) == 4, answer(2)"
LIMIT_S = 1.0

# Reports `reached`: what a program managed to do.
REACH = """
reached = []
def attempt(work):
    try:
        reached.append(work())
    except BaseException as error:
        pass
def answer(x):
    return 4 if reached else reached
"""

SPOOFS = {
    "leaves with success": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "leaves when it is called": "import os\ndef answer(x):\n    os._exit(0)",
    "raises SystemExit when it is called": "def answer(x):\n    raise SystemExit(0)",
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "prints success": "print('passed')\nprint('{\"passed\": true}')\ndef answer(x): return 5",
    "returns what equals everything": (
        "class Yes:\n"
        "    def __eq__(self, other): return True\n"
        "    def __bool__(self): return True\n"
        "def answer(x): return Yes()"
    ),
    "returns a number that equals everything": (
        "class Yes(int):\n    def __eq__(self, other): return True\ndef answer(x): return Yes(5)"
    ),
    "returns a list that equals everything": (
        "class Yes(list):\n    def __eq__(self, other): return True\ndef answer(x): return Yes()"
    ),
    "changes builtins": (
        "import builtins\n"
        "builtins.AssertionError = type('Quiet', (BaseException,), {})\n"
        "builtins.__build_class__ = builtins.compile = builtins.exec = builtins.eval = lambda *a, **k: None\n"
        "def answer(x): return 5"
    ),
    "changes the judge": (
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.startswith('evalsuite'):\n"
        "        for key, value in list(vars(module).items()):\n"
        "            if callable(value) and key in ('_tests', '_verdict', '_token', 'judge', 'report', '_described'):\n"
        "                setattr(module, key, lambda *a, **k: None)\n"
        "def answer(x): return 5"
    ),
    "defines check and candidate": "def check(candidate): pass\ncandidate = None\ndef answer(x): return 5",
    "traces the caller": (
        "import sys\n"
        "def answer(x):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        frame.f_locals.update(passed=True, why=None)\n"
        "        frame = frame.f_back\n"
        "    return 5"
    ),
    "writes a verdict to every descriptor": (
        "import os\n"
        'text = b\'taken\\n{"passed": true, "why": "", "cpu_s": 0}\'\n'
        "def shout():\n"
        "    for fd in range(64):\n"
        "        try: os.write(fd, text)\n"
        "        except OSError: pass\n"
        "shout()\n"
        "def answer(x):\n"
        "    shout()\n"
        "    return 5"
    ),
    "sends a pickle that calls": (
        "import os, pickle, struct\n"
        "class Call:\n"
        "    def __reduce__(self): return os._exit, (0,)\n"
        "def answer(x):\n"
        "    data = pickle.dumps(('value', Call()))\n"
        "    os.write(3, struct.pack('=I', len(data)) + data)"
    ),
    "changes a class of the other side": (
        "import os, struct, time\n"
        "foreign = b'cevalsuite.sandbox.wire\\nForeign\\n'\n"
        "equal = b'(N}V__eq__\\ncbuiltins\\nstr\\nstb'\n"
        "data = b'\\x80\\x04(Vvalue\\n' + foreign + equal + b'0' + foreign + b'K\\x00\\x85Rt.'\n"
        "def answer(x):\n"
        "    os.write(3, struct.pack('=I', len(data)) + data)\n"
        "    time.sleep(600)"
    ),
    "changes a library's class on the other side": (
        "import os, struct, time\n"
        "fraction = b'cfractions\\nFraction\\n'\n"
        "equal = b'(N}V__eq__\\ncbuiltins\\nstr\\nstb'\n"
        "data = b'\\x80\\x04(Vvalue\\n' + fraction + equal + b'0' + fraction + b'K\\x05\\x85Rt.'\n"
        "def answer(x):\n"
        "    os.write(3, struct.pack('=I', len(data)) + data)\n"
        "    time.sleep(600)"
    ),
    "raises a number that cannot be printed": (
        "import os, pickle, struct\n"
        "data = pickle.dumps(('raised', 1 << 100000, ''))\n"
        "os.write(3, struct.pack('=I', len(data)) + data)\n"
        "os._exit(0)"
    ),
    "returns a number that cannot be printed": "def answer(x): return 1 << 100000",
    "announces a message without end": "import os\ndef answer(x):\n    os.write(3, b'\\xff' * 64)",
    "sends a number that takes an hour to print": "def answer(x): return 1 << (8 << 26)",
    "tells the truth about another question": "def answer(x): return (4,)",
    "stops being there": "def nothing(): pass",
    "does not parse": "def answer(x: return 4",
    "holds a null byte": "def answer(x): return 5\n\0",
}

REACHES = {
    "reads what everybody may read": "attempt(lambda: open({folder!r} + '/public').read())",
    "writes where everybody may write": "attempt(lambda: open({folder!r} + '/left', 'w'))",
    "removes files": (
        "import os, shutil\n"
        "shutil.rmtree('/', ignore_errors=True)\n"
        "shutil.rmtree({folder!r}, ignore_errors=True)\n"
        "attempt(lambda: os.remove({folder!r} + '/public'))\n"
        "attempt(lambda: os.system('rm -rf {folder}/* ~/*') and None or 1 / 0)"
    ),
    "reads the accounts": "attempt(lambda: open('/etc/passwd').read())",
    "reads the home folder": (
        "import os, glob\n"
        "attempt(lambda: os.listdir('/root'))\n"
        "attempt(lambda: [open(p).read() for p in glob.glob('/home/*/.*')][0])"
    ),
    "finds the environment": (
        "import os\n"
        "attempt(lambda: os.environ['EVALSUITE_TEST_SECRET'])\n"
        "attempt(lambda: os.environb[b'HOSTNAME'])\n"
        "attempt(lambda: open('/proc/self/environ').read())\n"
        "attempt(lambda: open('/proc/1/environ').read())"
    ),
    "reads memory through /proc": (
        "import os\n"
        "for who in ('self', '1', '2', str(os.getppid())):\n"
        "    attempt(lambda: open(f'/proc/{{who}}/mem', 'rb').read(1))\n"
        "    attempt(lambda: open(f'/proc/{{who}}/maps').read())\n"
        "    attempt(lambda: os.listdir(f'/proc/{{who}}/fd'))"
    ),
    "connects": (
        "import socket\n"
        "attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 1))\n"
        "attempt(lambda: socket.create_connection(('1.1.1.1', 53), 1))"
    ),
    "opens sockets": (
        "import socket\n"
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):\n"
        "        attempt(lambda: socket.socket(family, kind))\n"
        "attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))\n"
        "for family in range(2, 46): attempt(lambda: socket.socketpair(family, socket.SOCK_STREAM))"
    ),
    "signals its parents": (
        "import os, signal\n"
        "for pid in (os.getppid(), 1, 2, 3):\n"
        "    if pid != os.getpid():\n"
        "        for number in (signal.SIGSTOP, signal.SIGKILL):\n"
        "            try: os.kill(pid, number)\n"
        "            except OSError: pass\n"
        "try: os.killpg(os.getpgid(os.getppid()), signal.SIGTERM)\n"
        "except OSError: pass"
    ),
    "limits other processes": (
        "import os, resource\n"
        "for pid in (os.getppid(), 1, {pid}):\n"
        "    attempt(lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)))"
    ),
    "slows other processes down": (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "for pid in (os.getppid(), 1, {pid}):\n"
        "    attempt(lambda: os.setpriority(os.PRIO_PROCESS, pid, 1) or 1)\n"
        "    attempt(lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)) or 1)\n"
        "    attempt(lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)) or 1)\n"
        "attempt(lambda: os.setpriority(os.PRIO_USER, os.getuid(), 1) or 1)\n"
        "attempt(lambda: os.setpriority(os.PRIO_PGRP, 0, 1) or 1)"
    ),
    "has signals sent by a descriptor": (
        "import fcntl, os\n"
        "for pid in (os.getppid(), 1, {pid}):\n"
        "    attempt(lambda: fcntl.fcntl(3, fcntl.F_SETOWN, pid) or 1)\n"
        "    attempt(lambda: fcntl.ioctl(3, 0x8901, pid.to_bytes(4, 'little')))\n"
        "attempt(lambda: fcntl.fcntl(3, 10, 9) or 1)"
    ),
    "changes the files of others": (
        "import os\n"
        "def close(path):\n"
        "    os.chmod(path, 0o700)\n"
        "    assert os.stat(path).st_mode & 0o777 == 0o700\n"
        "    return path\n"
        "def age(path):\n"
        "    os.utime(path, (1, 1))\n"
        "    assert os.stat(path).st_mtime == 1\n"
        "    return path\n"
        "for path in ({folder!r}, {folder!r} + '/public', os.__file__):\n"
        "    attempt(lambda: close(path))\n"
        "    attempt(lambda: age(path))\n"
        "    attempt(lambda: os.setxattr(path, 'user.left', b'1') or 1)"
    ),
    "traces its parent": (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for pid in (os.getppid(), 1, 2):\n"
        "    attempt(lambda: libc.ptrace(16, pid, 0, 0) == 0 or 1 / 0)\n"
        "    attempt(lambda: libc.ptrace(0x4206, pid, 0, 0) == 0 or 1 / 0)"
    ),
    "reads its parent's memory": (
        "import ctypes, os\n"
        "class Part(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        "libc = ctypes.CDLL(None)\n"
        "room = ctypes.create_string_buffer(8)\n"
        "here, there = Part(ctypes.addressof(room), 8), Part(id(room), 8)\n"
        "for pid in (os.getppid(), 1, 2):\n"
        "    attempt(lambda: libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0 or 1 / 0)"
    ),
    "finds the tests in memory": (
        "import gc, sys\n"
        "word = 'ecret-of-the-test'\n"
        "def texts():\n"
        "    for thing in gc.get_objects():\n"
        "        for part in gc.get_referents(thing):\n"
        "            if isinstance(part, (str, bytes)): yield part\n"
        "for text in texts():\n"
        "    text = text.decode('latin1') if isinstance(text, bytes) else text\n"
        "    if 's' + word in text and text != word: reached.append(text)"
    ),
    "makes namespaces": (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):\n"
        "    attempt(lambda: libc.unshare(flag) == 0 or 1 / 0)\n"
        "    attempt(lambda: libc.syscall(56, flag | 17, 0, 0, 0, 0) > 0 or 1 / 0)"
    ),
    "mounts": (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "attempt(lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 or 1 / 0)\n"
        "attempt(lambda: libc.umount2(b'/tmp', 2) == 0 or 1 / 0)\n"
        "attempt(lambda: libc.chroot(b'/tmp') == 0 or 1 / 0)"
    ),
    "becomes somebody else": (
        "import os\n"
        "for uid in (0, 1, 1000):\n"
        "    attempt(lambda: os.setuid(uid) or 1)\n"
        "    attempt(lambda: os.setresuid(uid, uid, uid) or 1)\n"
        "    attempt(lambda: os.setgroups([uid]) or 1)\n"
        "if os.getuid() in (0,): reached.append('root')"
    ),
    "raises its limits": (
        "import resource\n"
        "for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):\n"
        "    attempt(lambda: resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)) or 1)\n"
        "attempt(lambda: len(bytearray(3 << 30)))"
    ),
    "follows links out": (
        "import os\n"
        "os.symlink('/etc', 'etc')\n"
        "os.symlink({folder!r}, 'out')\n"
        "attempt(lambda: open('etc/passwd').read())\n"
        "attempt(lambda: open('out/public').read())\n"
        "attempt(lambda: open('out/left', 'w'))\n"
        "attempt(lambda: os.link('/etc/passwd', 'passwd'))\n"
        "attempt(lambda: os.rename({folder!r} + '/public', 'public'))"
    ),
    "writes a huge file": (
        "import os\n"
        "def grow():\n"
        "    with open('huge', 'wb') as file:\n"
        "        for _ in range(64): file.write(bytes(1 << 20))\n"
        "    return os.path.getsize('huge')\n"
        "attempt(grow)"
    ),
    "uses shared memory": (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "attempt(lambda: open('/dev/shm/left', 'w'))\n"
        "attempt(lambda: os.memfd_create('left'))\n"
        "attempt(lambda: libc.shmget(7, 4096, 0o1777) >= 0 or 1 / 0)"
    ),
    "runs a shell": (
        "import os, subprocess\n"
        "attempt(lambda: subprocess.run('cat /etc/passwd {folder}/public', shell=True, check=True))\n"
        "attempt(lambda: subprocess.run(['/bin/ls', '/root'], check=True))\n"
        "attempt(lambda: subprocess.run(['/bin/mount'], check=True))"
    ),
    "reads the sandbox's sources": (
        "import sys\n"
        "attempt(lambda: open({repository!r} + '/evalsuite/sandbox/judge.py').read())\n"
        "attempt(lambda: __import__('evalsuite.sandbox.pool'))"
    ),
}

BOMBS = {
    "forks without end": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "starts threads without end": (
        "import threading, time\n"
        "while True:\n"
        "    try: threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "    except RuntimeError: pass"
    ),
    "takes all memory": "held = []\nwhile True: held.append(bytearray(64 << 20))",
    "takes all memory in many processes": (
        "import os\n"
        "for _ in range(8): os.fork()\n"
        "held = []\n"
        "while True:\n"
        "    try: held.append(bytes(4 << 20))\n"
        "    except MemoryError: pass"
    ),
    "prints without end": "while True: print('x' * 65536)",
    "writes to stderr without end": "import os\nwhile True: os.write(2, b'x' * 65536)",
    "spins": "while True: pass",
    "spins when it is called": "def answer(x):\n    while True: pass",
    "sleeps": "import time\ntime.sleep(600)",
    "waits for a thread that never ends": (
        "import threading\nt = threading.Thread(target=threading.Event().wait)\nt.start()\nt.join()"
    ),
    "catches everything": (
        "import signal, time\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True:\n"
        "    try:\n"
        "        while True: time.sleep(1)\n"
        "    except BaseException: pass"
    ),
    "leaves a daemon": (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    try: os.setsid()\n"
        "    except OSError: pass\n"
        "    if os.fork() == 0: time.sleep(600)\n"
        "    os._exit(0)\n"
        "def answer(x): return 5"
    ),
    "leaves a daemon that holds everything open": ("import os, time\nif os.fork() == 0: time.sleep(600)\nos._exit(0)"),
    "recurses": "def answer(x): return answer(x + 1)",
    "recurses past the stack": "import sys\nsys.setrecursionlimit(10**9)\ndef answer(x): return answer(x + 1)",
    "crashes the interpreter": "import ctypes\nctypes.string_at(0)",
    "aborts": "import os\nos.abort()",
    "closes its descriptors": "import os\nos.closerange(0, 1024)\nwhile True: pass",
    "closes its descriptors and leaves": "import os\nos.closerange(0, 1024)",
    "fills the folder": (
        "n = 0\nwhile True:\n    n += 1\n    with open(f'file{n}', 'wb') as file: file.write(bytes(8 << 20))"
    ),
    "makes folders in folders": "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
    "closes its folder": "import os\nos.makedirs('a/b/c')\nos.chmod('a', 0)\nos.chmod('.', 0)",
    "computes a huge number": "answer = lambda x: 9 ** 9 ** 9",
    "compiles a monster": "eval('(' * 90 + '1' + ')' * 90 + ' ** 9' * 3)\nexec('x = ' + '-' * 200000 + '1')",
    "sends gigabytes": "def answer(x): return ['x' * (1 << 20) for _ in range(512)]",
}
