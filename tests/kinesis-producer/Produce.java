import com.google.common.util.concurrent.ListenableFuture;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.Attempt;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordFailedException;
import software.amazon.kinesis.producer.UserRecordResult;

/** Put numbered events by Amazon's KPL until stdin ends; then say in one line of JSON what it has confirmed. */
class Produce {
  public static void main(String[] given) throws Exception {
    int port = Integer.parseInt(given[0]), sts = Integer.parseInt(given[1]), perSecond = Integer.parseInt(given[4]);
    String stream = given[2];
    long start = Long.parseLong(given[5]);
    var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
    var settings = new KinesisProducerConfiguration().setRegion("us-east-1").setCredentialsProvider(credentials)
        .setKinesisEndpoint("127.0.0.1").setKinesisPort(port).setStsEndpoint("127.0.0.1").setStsPort(sts)
        .setVerifyCertificate(false).setMetricsLevel("none").setTempDirectory(given[3]).setLogLevel("warning")
        .setRecordMaxBufferedTime(500).setRequestTimeout(60_000).setConnectTimeout(60_000).setRecordTtl(600_000)
        .setMinConnections(1).setMaxConnections(2);
    var producer = new KinesisProducer(settings);
    var results = new ArrayList<ListenableFuture<UserRecordResult>>();
    var ended = CompletableFuture.supplyAsync(Produce::endOfInput);
    long began = System.nanoTime();
    for (int number = 0; !ended.isDone(); number++) {
      String event = String.format("{\"device\":\"k%d\",\"metric\":\"m%d\",\"ts\":%d,\"value\":%d}",
          number % 7, number % 3, start + number, number);
      var bytes = ByteBuffer.wrap(event.getBytes(StandardCharsets.UTF_8));
      results.add(producer.addUserRecord(stream, "ключ-" + number % 97, bytes));
      long due = began + number * 1_000_000_000L / perSecond - System.nanoTime();
      if (due > 0) TimeUnit.NANOSECONDS.sleep(due);
      if (number % perSecond == 0) System.err.println("put " + number);
    }
    producer.flushSync();
    int confirmed = 0;
    Set<String> shards = new TreeSet<>();
    Map<String, Integer> failures = new TreeMap<>();
    for (var one : results) {
      List<Attempt> attempts;
      try {
        var result = one.get(600, TimeUnit.SECONDS);
        confirmed++;
        shards.add(result.getShardId());
        attempts = result.getAttempts();
      } catch (ExecutionException failed) {
        attempts = ((UserRecordFailedException) failed.getCause()).getResult().getAttempts();
      }
      for (var attempt : attempts)
        if (!attempt.isSuccessful())
          failures.merge((attempt.getErrorCode() + ": " + attempt.getErrorMessage()).replaceAll("[0-9]+", "N"), 1, Integer::sum);
    }
    var reasons = new StringJoiner(", ", "{", "}");
    failures.forEach((reason, count) -> reasons.add("\"" + reason.replace('"', '_').replace('\\', '_') + "\": " + count));
    System.out.printf("{\"put\": %d, \"confirmed\": %d, \"shards\": %d, \"failures\": %s}%n",
        results.size(), confirmed, shards.size(), reasons);
    producer.destroy();
  }

  private static boolean endOfInput() {
    try {
      return System.in.read() < 0;
    } catch (IOException gone) {
      return true;
    }
  }
}
