# One image for every role: docker run penstock dispatcher | worker | status | demo …
FROM python:3.11-slim-bookworm

WORKDIR /opt/penstock
COPY . .
RUN pip install --no-cache-dir '.[demo]' && useradd --create-home penstock
USER penstock
WORKDIR /home/penstock
ENV TF_CPP_MIN_LOG_LEVEL=2
EXPOSE 5050 5051
ENTRYPOINT ["penstock"]
CMD ["--help"]
