import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.List;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Tensor;
import org.tensorflow.TensorFlow;
import org.tensorflow.framework.MetaGraphDef;
import org.tensorflow.framework.SignatureDef;

/** Sends all lines of a file (text_a, tab, text_b) to a model as one batch; prints label and probabilities of each. */
public class Ask {
  public static void main(String[] arguments) throws Exception {
    List<String> lines = Files.readAllLines(Paths.get(arguments[1]), StandardCharsets.UTF_8);
    byte[][] textA = new byte[lines.size()][];
    byte[][] textB = new byte[lines.size()][];
    for (int row = 0; row < lines.size(); row++) {
      String[] pair = lines.get(row).split("\t", -1);
      textA[row] = pair[0].getBytes(StandardCharsets.UTF_8);
      textB[row] = pair[1].getBytes(StandardCharsets.UTF_8);
    }
    System.err.println("TensorFlow " + TensorFlow.version() + " for Java");
    try (SavedModelBundle model = SavedModelBundle.load(arguments[0], "serve");
        Tensor<String> a = Tensor.create(textA, String.class);
        Tensor<String> b = Tensor.create(textB, String.class)) {
      SignatureDef signature = MetaGraphDef.parseFrom(model.metaGraphDef()).getSignatureDefOrThrow("serving_default");
      List<Tensor<?>> found = model.session().runner()
          .feed(signature.getInputsOrThrow("text_a").getName(), a)
          .feed(signature.getInputsOrThrow("text_b").getName(), b)
          .fetch(signature.getOutputsOrThrow("label").getName())
          .fetch(signature.getOutputsOrThrow("probabilities").getName())
          .run();
      byte[][] labels = found.get(0).copyTo(new byte[lines.size()][]);
      int classes = (int) found.get(1).shape()[1];
      float[][] probabilities = found.get(1).copyTo(new float[lines.size()][classes]);
      StringBuilder out = new StringBuilder();
      for (int row = 0; row < lines.size(); row++) {
        out.append(new String(labels[row], StandardCharsets.UTF_8));
        for (float probability : probabilities[row]) {
          out.append('\t').append(probability);
        }
        out.append('\n');
      }
      System.out.write(out.toString().getBytes(StandardCharsets.UTF_8));
      System.out.flush();
    }
  }
}
