# Install the clone into the image's virtual environment, and let `make` use it.
set -e
if [ -d .venv ] && [ ! -L .venv ]; then
    echo "The clone has a folder .venv, whose Python is not this container's, and make would use it." >&2
    echo "Rename or remove it, and then run: sh .devcontainer/post-create.sh" >&2
    exit 1
fi
uv pip install --no-deps --editable .
ln -sfn "$VIRTUAL_ENV" .venv
rm -f .venv/.installed # of another user, perhaps
touch .venv/.installed
