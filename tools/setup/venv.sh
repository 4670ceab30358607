# Makes .venv out of the distribution's Python, because guestfs comes with that one only, and installs what uv.lock says.

uv_version=0.13.9

identity='import sys; print(sys.version, sys.base_prefix)'

is_current() {
    [ -x .venv/bin/python ] &&
        [ "$(.venv/bin/python -c "$identity")" = "$(/usr/bin/python3 -c "$identity")" ] &&
        grep --quiet 'include-system-site-packages = true' .venv/pyvenv.cfg
}

if ! is_current; then
    /usr/bin/python3 -m venv --clear --system-site-packages .venv
fi
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d ' ' -f 2)" != "$uv_version" ]; then
    .venv/bin/pip install --disable-pip-version-check --no-input "uv==$uv_version"
fi
env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$PWD/.venv" UV_PYTHON_DOWNLOADS=never \
    .venv/bin/uv sync --frozen --all-packages --python .venv/bin/python
.venv/bin/python -c 'import guestfs'
